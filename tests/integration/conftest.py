from tests.support.network.fixtures import link, network

__all__ = ["link", "network"]
