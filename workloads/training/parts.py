"""Which part of a network a parameter or layer belongs to, told by its name."""

from workloads.config.optim import Part

_HEAD_PARTS: dict[str, Part] = {"reduction": "reduction", "pooling": "pooling"}


def part_of(name: str) -> Part:
    """Return the part that a parameter, buffer or layer of a `GCPNet` belongs to.

    What is neither features nor reduction nor pooling is the classifier: the hidden layers, the
    classifier itself and that of the class token.
    """
    first, _, rest = name.partition(".")
    if first == "features":
        return "features"
    if first == "head":
        return _HEAD_PARTS.get(rest.partition(".")[0], "classifier")
    return "classifier"
