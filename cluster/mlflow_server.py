"""The `mlflow` service: MLflow's own application in one process, behind the cluster's token.

`mlflow server` runs a command-line process, a uvicorn parent and four workers; one process
serves a single user's cluster as well and costs a fraction. What that command hands its
workers by environment is set here, before MLflow is imported.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from cluster.credentials import read_token
from cluster.layout import Layout
from cluster.ports import LOOPBACK
from cluster.token_gate import TokenGate


def build_settings(layout: Layout, port: int) -> dict[str, str]:
    """Return the environment `mlflow server` would give its workers."""
    store = f"sqlite:///{layout.mlflow / 'mlflow.db'}"
    hosts = [f"{host}{suffix}" for host in (LOOPBACK, "localhost") for suffix in ("", f":{port}")]
    return {
        "_MLFLOW_SERVER_FILE_STORE": store,
        "_MLFLOW_SERVER_REGISTRY_STORE": store,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(layout.mlflow / "artifacts"),
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(hosts),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="cluster.mlflow_server")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(arguments)
    layout = Layout(options.home)
    os.umask(0o077)
    (layout.mlflow / "artifacts").mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = build_settings(layout, options.port)
    os.environ.update(settings)
    token = read_token(layout.token)

    import uvicorn
    from filelock import FileLock
    from mlflow.server import constants, handlers

    _check_names(constants, settings)
    with FileLock(layout.mlflow / "schema.lock"):  # first use by two processes corrupts nothing
        handlers.initialize_backend_stores(
            settings["_MLFLOW_SERVER_FILE_STORE"],
            settings["_MLFLOW_SERVER_REGISTRY_STORE"],
            settings["_MLFLOW_SERVER_ARTIFACT_ROOT"],
        )
    from mlflow.server.fastapi_app import app

    uvicorn.run(
        TokenGate(app, token, options.port),
        host=LOOPBACK,
        port=options.port,
        access_log=False,  # it would show the query with the token
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    return 0


def _check_names(constants: object, settings: dict[str, str]) -> None:
    """Stop when this MLflow reads other variables: it would open another store, silently."""
    for name in (
        "BACKEND_STORE_URI_ENV_VAR",
        "REGISTRY_STORE_URI_ENV_VAR",
        "ARTIFACT_ROOT_ENV_VAR",
        "SERVE_ARTIFACTS_ENV_VAR",
        "ARTIFACTS_DESTINATION_ENV_VAR",
    ):
        variable = getattr(constants, name, None)
        if variable not in settings:
            raise RuntimeError(f"this MLflow's {name} is {variable!r}, which is not set here")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
