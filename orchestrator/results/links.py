"""Links into the MLflow UI."""

from orchestrator.jobs.job import Job

# Without it a first visitor gets the sidebar for language models.
_SIDEBAR = "workflowType=machine_learning"


def run_page(job: Job) -> str:
    """Return the address of a job's page, to be put behind that of the server."""
    return f"#/experiments/{job.experiment_id}/runs/{job.run_id}?{_SIDEBAR}"


def start_page() -> str:
    """Return the address of the list of studies, to be put behind that of the server."""
    return f"#/experiments?{_SIDEBAR}"
