"""The server's certificate: from files, self-signed, or issued by an authority in a Secret."""
