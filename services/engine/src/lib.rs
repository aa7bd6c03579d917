//! quinn-proto for Python: a QUIC endpoint and its connections, without I/O, threads or a clock.
//!
//! Times are integers: nanoseconds of a monotonic clock. Addresses are those of Python's `socket`.
//! A connection is an integer, its handle, which is never used again. Functions ignore a handle of
//! a connection that is forgotten. No function calls back into Python.

#![deny(unsafe_code)]

mod address;
mod clock;
mod congestion;
mod connection;
mod endpoint;
mod frames;
mod ids;
mod memory;
mod parameters;
mod streams;
mod tls;
mod varint;
mod watch;

use pyo3::prelude::*;

pyo3::create_exception!(
    pingpong_engine,
    QuicError,
    pyo3::exceptions::PyException,
    "A QUIC error: its arguments are the code of RFC 9000, section 20.1, and a reason."
);

/// quinn-proto for Python.
#[pymodule]
mod pingpong_engine {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::QuicError;
    #[pymodule_export]
    use super::endpoint::{Endpoint, Waiting};
    #[pymodule_export]
    use super::tls::Authorities;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        super::connection::add_kinds(module)?;
        super::endpoint::add_outcomes(module)
    }
}
