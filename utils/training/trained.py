"""A trained network: its weights written and read."""

from torch import nn

from utils.devices import keep_freed_memory
from utils.files import replacing
from utils.models.network import Network
from utils.models.weights import as_bytes, read_network
from utils.runs import Run


def save_network(run: Run, network: nn.Module) -> None:
    """Write the weights alone as ``model.safetensors``, their checksum into ``run.json``."""
    content, checksum = as_bytes(network)
    # before the file itself: a run killed in between is not yet trained, and writes both again
    run.update_record(model={**run.record["model"], "sha256": checksum})
    with replacing(run.path("model.safetensors")) as beside:
        beside.write_bytes(content)


def load_network(run: Run, device: str = "cpu") -> Network:
    """Return the trained network of a run: float32, channels-last, in evaluation mode.

    Raises:
        InputError: the weights are missing, damaged, or of another network.
    """
    keep_freed_memory()
    path, record = run.existing("model.safetensors"), run.record
    network = read_network(
        path,
        record["settings"]["model"],
        len(record["data"]["classes"]),
        record["settings"]["image_size"],
        record["model"].get("sha256"),
        "Bring back the run's own file, or train again with overwrite=True.",
    )
    return network.to(device)
