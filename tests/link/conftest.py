from tests.support.link.fixtures import link, network

__all__ = ["link", "network"]
