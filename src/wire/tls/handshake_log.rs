//! The log lines about TLS handshakes with clients that fail.

use std::{io, net::SocketAddr, time::Duration};

use parking_lot::Mutex;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use crate::wire::timers::log_throttle::LogThrottle;

/// The minimum time between two lines. Any client can make handshakes fail.
const LOG_PERIOD: Duration = Duration::from_secs(1);

/// Logs failed handshakes, one a second at most. Every failure is also logged at the level `debug`.
#[derive(Default)]
pub(in crate::wire) struct HandshakeLog(Mutex<Throttled>);

#[derive(Default)]
struct Throttled {
    throttle: LogThrottle,
    /// The number of failures since the last line.
    suppressed: u64,
}

/// Why a handshake failed, in plain words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) struct HandshakeFailure(&'static str);

impl HandshakeFailure {
    /// The server has closed the connection before the end of the handshake.
    pub const CLOSED: Self = Self(
        "the connection was closed during the TLS handshake, because the client did not complete it in time, a new client \
         needed its place, or the server stops",
    );
}

impl From<&io::Error> for HandshakeFailure {
    fn from(error: &io::Error) -> Self {
        let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
            return Self(match error.kind() {
                io::ErrorKind::UnexpectedEof => "the client closed the connection during the TLS handshake",
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                    "the client reset the connection during the TLS handshake"
                }
                _ => "the connection failed during the TLS handshake",
            });
        };
        Self(match error {
            Error::InvalidMessage(_) => "the client does not speak TLS; it may have been given an http:// address",
            Error::PeerIncompatible(reason) => incompatibility(reason),
            Error::NoCertificatesPresented => "the client sent no certificate, and server.tls.client_ca requires one",
            Error::InvalidCertificate(reason) => certificate_problem(reason),
            Error::AlertReceived(alert) => alert_cause(*alert),
            Error::NoApplicationProtocol => "the client offers neither HTTP/2 nor HTTP/1.1 (ALPN)",
            Error::DecryptError => "a message of the client could not be decrypted",
            Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerMisbehaved(_)
            | Error::PeerSentOversizedRecord => "the client violates the TLS protocol",
            _ => "the TLS library could not complete the handshake",
        })
    }
}

fn incompatibility(reason: &PeerIncompatible) -> &'static str {
    use PeerIncompatible as P;
    match reason {
        P::ServerDoesNotSupportTls12Or13
        | P::ServerTlsVersionIsDisabledByOurConfig
        | P::SupportedVersionsExtensionRequired
        | P::Tls12NotOffered
        | P::Tls12NotOfferedOrEnabled => "the client supports neither TLS 1.2 nor TLS 1.3",
        P::NoCipherSuitesInCommon => "the client and this server have no cipher suite in common",
        P::NoKxGroupsInCommon | P::NamedGroupsExtensionRequired | P::KeyShareExtensionRequired => {
            "the client and this server have no key exchange group in common"
        }
        P::NoSignatureSchemesInCommon
        | P::NoCertificateRequestSignatureSchemesInCommon
        | P::SignatureAlgorithmsExtensionRequired => {
            "the client and this server have no signature algorithm in common that fits the certificate"
        }
        _ => "the client lacks a feature of TLS that this server requires",
    }
}

fn certificate_problem(reason: &CertificateError) -> &'static str {
    use CertificateError as C;
    match reason {
        C::UnknownIssuer | C::BadSignature => {
            "the client's certificate is not signed by an authority in server.tls.client_ca"
        }
        C::Expired | C::ExpiredContext { .. } => "the client's certificate has expired",
        C::NotValidYet | C::NotValidYetContext { .. } => "the client's certificate is not valid yet",
        C::Revoked => "the client's certificate is revoked",
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => "the client's certificate is not one for clients",
        _ => "the client's certificate is invalid",
    }
}

fn alert_cause(alert: AlertDescription) -> &'static str {
    use AlertDescription as A;
    match alert {
        A::UnknownCA => "the client does not trust the authority of the server's certificate",
        // Two authorities with the same name differ only in their keys.
        A::DecryptError => "the client could not verify the server's certificate",
        A::BadCertificate | A::CertificateUnknown | A::UnsupportedCertificate => {
            "the client does not accept the server's certificate"
        }
        A::CertificateExpired => "the client says that the server's certificate has expired",
        A::UnrecognisedName => "the client does not accept the names in the server's certificate",
        A::ProtocolVersion => "the client supports neither TLS 1.2 nor TLS 1.3",
        A::HandshakeFailure | A::InsufficientSecurity => "the client accepts none of the server's algorithms",
        A::CloseNotify | A::UserCanceled => "the client closed the connection during the TLS handshake",
        _ => "the client refused the TLS handshake",
    }
}

impl HandshakeLog {
    /// Logs that the handshake with `peer` has failed. `error` is the text of the library, if the failure is one of it.
    pub fn record(&self, peer: SocketAddr, failure: HandshakeFailure, error: Option<&io::Error>) {
        let reason = failure.0;
        let error = error.map(tracing::field::display);
        match self.pass() {
            Some(suppressed) => {
                tracing::info!(%peer, reason, error, suppressed, "a TLS handshake with a client failed");
            }
            None => tracing::debug!(%peer, reason, error, "a TLS handshake with a client failed"),
        }
    }

    /// Returns the number of failures since the last line, or `None` if this failure has no line.
    fn pass(&self) -> Option<u64> {
        let mut throttled = self.0.lock();
        if throttled.throttle.try_pass(LOG_PERIOD) {
            return Some(std::mem::take(&mut throttled.suppressed));
        }
        throttled.suppressed += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use rustls::InvalidMessage;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_failure_a_second_is_logged_and_the_others_are_counted() {
        let log = HandshakeLog::default();
        let passed: Vec<Option<u64>> = (0..3).map(|_| log.pass()).collect();
        assert_eq!(passed, [Some(0), None, None]);
        tokio::time::advance(LOG_PERIOD).await;
        assert_eq!((log.pass(), log.pass()), (Some(2), None));
    }

    #[test]
    fn each_failure_has_a_reason_that_names_its_cause() {
        let reason = |error: Error| HandshakeFailure::from(&io::Error::new(io::ErrorKind::InvalidData, error)).0;
        for (error, part) in [
            (
                Error::InvalidMessage(InvalidMessage::InvalidContentType),
                "does not speak TLS",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled),
                "neither TLS 1.2",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                "cipher suite",
            ),
            (Error::NoCertificatesPresented, "no certificate"),
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), "client_ca"),
            (Error::InvalidCertificate(CertificateError::Expired), "expired"),
            (Error::AlertReceived(AlertDescription::UnknownCA), "does not trust"),
            (Error::NoApplicationProtocol, "ALPN"),
        ] {
            assert!(
                reason(error.clone()).contains(part),
                "{error:?}: {}",
                reason(error.clone())
            );
        }
        for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset] {
            let reason = HandshakeFailure::from(&io::Error::from(kind)).0;
            assert!(reason.contains("during the TLS handshake"), "{reason}");
        }
    }
}
