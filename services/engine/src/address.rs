//! Addresses, as Python's `socket` has them.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// Read `(host, port)` or `(host, port, flow, scope)`.
pub fn read(address: &Bound<'_, PyTuple>) -> PyResult<SocketAddr> {
    let host = address.get_item(0)?;
    let host: &str = host.extract()?;
    let port: u16 = address.get_item(1)?.extract()?;
    // A zone is in the scope too.
    let ip: IpAddr = host
        .split_once('%')
        .map_or(host, |(ip, _)| ip)
        .parse()
        .map_err(|_| PyValueError::new_err(format!("'{host}' is no IP address")))?;
    Ok(match ip {
        IpAddr::V6(ip) if address.len() == 4 => {
            let scope: u32 = address.get_item(3)?.extract()?;
            // The flow label is no part of who the peer is.
            SocketAddrV6::new(ip, port, 0, scope).into()
        }
        _ => SocketAddr::new(ip, port),
    })
}

/// What `read` would read as `address`.
pub fn write(py: Python<'_>, address: SocketAddr) -> PyResult<Py<PyTuple>> {
    let host = address.ip().to_string();
    let tuple = match address {
        SocketAddr::V4(_) => (host, address.port()).into_pyobject(py)?,
        SocketAddr::V6(ip) => (host, ip.port(), 0_u32, ip.scope_id()).into_pyobject(py)?,
    };
    Ok(tuple.unbind())
}
