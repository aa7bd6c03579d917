"""UDP sockets of an event loop: packets in and out, in batches, with their arrival times."""
