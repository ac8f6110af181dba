"""Kubernetes' quantities of CPU."""


def cores(quantity: str) -> float:
    """Cores, of ``1``, ``0.5``, ``100m`` and the like (kubernetes.io, "Resource units in Kubernetes")."""
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)
