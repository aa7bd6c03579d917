//! TLS configurations: a server's certificate, and what a client insists on.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

const ALPN: &[u8] = b"h3";

/// The authorities of PEM files.
#[pyclass(frozen)]
pub struct Authorities(Arc<RootCertStore>);

#[pymethods]
impl Authorities {
    /// Certificates that cannot be read are left out.
    #[new]
    fn new(pem: &[u8]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).flatten());
        Self(Arc::new(roots))
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }
}

/// A server's configuration, of a chain and a PKCS 8 key in DER.
pub fn server(chain: Vec<Vec<u8>>, key: Vec<u8>) -> PyResult<Arc<QuicServerConfig>> {
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(refused)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(refused)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(QuicServerConfig::try_from(config).map_err(
        |_| PyValueError::new_err("TLS has no cipher for Initial packets"),
    )?))
}

/// The certificate that a server showed, in DER, whether it was accepted or not.
pub type Shown = Arc<Mutex<Option<Vec<u8>>>>;

/// Whether a certificate can be for this host: for a DNS name or an IP address.
pub fn can_be_named(host: &str) -> bool {
    ServerName::try_from(host).is_ok()
}

/// A client's configuration. Without `authorities` and `pin` it accepts any certificate. Without
/// `is_named` those of authorities are refused, whichever name they have.
pub fn client(
    authorities: Option<&Authorities>,
    pin: Option<[u8; 32]>,
    is_named: bool,
) -> PyResult<(Arc<QuicClientConfig>, Shown)> {
    let provider = provider();
    let accepts = match (pin, authorities) {
        (Some(pin), _) => Accepts::One(pin),
        (None, None) => Accepts::Any,
        (None, Some(Authorities(roots))) if roots.is_empty() => Accepts::Nothing,
        (None, Some(Authorities(roots))) => Accepts::Signed(
            WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
                .build()
                .map_err(|error| PyValueError::new_err(error.to_string()))?,
        ),
    };
    let shown = Shown::default();
    let verifier = Verifier {
        accepts,
        is_named,
        shown: shown.clone(),
        provider: provider.clone(),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(refused)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    let config = QuicClientConfig::try_from(config)
        .map_err(|_| PyValueError::new_err("TLS has no cipher for Initial packets"))?;
    Ok((Arc::new(config), shown))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(error: Error) -> PyErr {
    PyValueError::new_err(error.to_string())
}

#[derive(Debug)]
enum Accepts {
    Any,
    /// The certificate with this SHA-256.
    One([u8; 32]),
    Signed(Arc<WebPkiServerVerifier>),
    Nothing,
}

/// Keeps the certificate that it verifies. That the server has its key is verified in any case.
#[derive(Debug)]
struct Verifier {
    accepts: Accepts,
    is_named: bool,
    shown: Shown,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(certificate.to_vec());
        match &self.accepts {
            Accepts::Any => Ok(ServerCertVerified::assertion()),
            Accepts::One(hash) => {
                if digest(&SHA256, certificate).as_ref() == hash {
                    Ok(ServerCertVerified::assertion())
                } else {
                    // Of the errors the one whose alert is bad_certificate.
                    Err(CertificateError::BadEncoding.into())
                }
            }
            Accepts::Signed(verifier) => {
                let accepted =
                    verifier.verify_server_cert(certificate, intermediates, name, ocsp, now)?;
                if self.is_named {
                    Ok(accepted)
                } else {
                    let (expected, presented) = (name.to_owned(), Vec::new());
                    Err(CertificateError::NotValidForNameContext {
                        expected,
                        presented,
                    }
                    .into())
                }
            }
            Accepts::Nothing => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("QUIC has TLS 1.3".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
