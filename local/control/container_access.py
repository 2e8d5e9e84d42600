"""Variables by which code in a container reaches the local service as it would reach AWS."""

from __future__ import annotations

from byoa.local.settings import Caller

# Any credentials do: the service does not check signatures. Never the user's own (they could end
# up in a log, or reach the cloud).
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "ASIALOCALBYOA0000000",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_SESSION_TOKEN": "local",
}


def service_environment(
    endpoint_url: str, caller: Caller, *, isolated: bool = False
) -> dict[str, str]:
    """Endpoint and credentials (TRAIN-81); empty for an isolated container, which has no network.

    `S3_ENDPOINT_URL` is what sagemaker-training reads.
    """
    if isolated:
        return {}
    return {
        **_CREDENTIALS,
        "AWS_REGION": caller.region,
        "AWS_DEFAULT_REGION": caller.region,
        "AWS_ENDPOINT_URL": endpoint_url,
        "S3_ENDPOINT_URL": endpoint_url,
    }
