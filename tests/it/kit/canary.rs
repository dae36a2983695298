//! Canary secrets: values that must not appear in any output, in any encoding.

use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;

/// A secret in every form in which a program could print it.
pub struct Canary {
    secret: String,
    forms: Vec<(&'static str, String)>,
}

impl Canary {
    pub fn new(secret: &str) -> Self {
        let bytes = secret.as_bytes();
        let json = serde_json::to_string(secret).expect("UTF-8 text");
        let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
        let digest = sha256(bytes);
        let mut forms = vec![
            ("as it is", secret.to_owned()),
            ("in JSON", json.trim_matches('"').to_owned()),
            ("as Debug", format!("{secret:?}").trim_matches('"').to_owned()),
            (
                "twice in JSON",
                json.trim_matches('"').replace('\\', r"\\").replace('"', "\\\""),
            ),
            ("percent-encoded", percent_encoded(secret)),
            ("in hexadecimal", hex(bytes)),
            ("as numbers", numbers.join(", ")),
            ("as JSON numbers", numbers.join(",")),
            ("as SHA-256", hex(&digest)),
            ("as SHA-256 in base64", base64(&digest).trim_end_matches('=').to_owned()),
        ];
        // Base64 depends on the offset of the secret within the encoded text. The characters that neighbouring bytes
        // influence are left out.
        for offset in 0..3 {
            let encoded = base64(&[&vec![0; offset][..], bytes].concat());
            let own = encoded
                .get(if offset == 0 { 0 } else { 4 }..encoded.len() - 4)
                .expect("the encoded secret is long enough");
            forms.push(("in base64", own.to_owned()));
            forms.push(("in base64url", own.replace('+', "-").replace('/', "_")));
        }
        for (form, text) in &forms {
            assert!(
                text.len() >= 8,
                "{secret} {form} is {text}, which is so short that it could occur by chance"
            );
        }
        Self {
            secret: secret.to_owned(),
            forms,
        }
    }

    /// Fails if `text` contains the secret. `place` describes where the text comes from.
    pub fn assert_absent(&self, text: &str, place: &str) {
        for (form, needle) in &self.forms {
            let Some(at) = text.find(needle) else { continue };
            let around = &text.as_bytes()[at.saturating_sub(300)..(at + 300).min(text.len())];
            let around = String::from_utf8_lossy(around);
            panic!("{} is in {place} {form}:\n{around}", self.secret);
        }
    }
}

/// Fails if `text` contains any of `canaries`.
pub fn assert_none(canaries: &[Canary], text: &str, place: &str) {
    for canary in canaries {
        canary.assert_absent(text, place);
    }
}

/// Returns the SHA-256 digest, computed by the TLS library.
fn sha256(bytes: &[u8]) -> Vec<u8> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a suite of TLS 1.3");
    suite.common.hash_provider.hash(bytes).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Returns the base64 encoding (RFC 4648 section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            text.push(if place <= group.len() {
                char::from(ALPHABET[(number >> (18 - 6 * place) & 63) as usize])
            } else {
                '='
            });
        }
    }
    text
}

#[test]
fn every_form_of_a_secret_is_found() {
    assert_eq!(base64(b"fo"), "Zm8=");
    assert_eq!(base64(b"foobar"), "Zm9vYmFy");
    let canary = Canary::new("a secret/\"é");
    for text in [
        "a secret/\"é".to_owned(),
        format!("{:?}", "a secret/\"é"),
        "a%20secret%2F%22%C3%A9".to_owned(),
        base64("xa secret/\"éz".as_bytes()),
        base64("xya secret/\"éz".as_bytes()),
        format!("{:?}", "a secret/\"é".as_bytes()),
        serde_json::json!([serde_json::json!({"x": "a secret/\"é"}).to_string()]).to_string(),
    ] {
        let found = std::panic::catch_unwind(|| canary.assert_absent(&text, "here"));
        assert!(found.is_err(), "{text}");
    }
    assert_eq!(hex(&sha256(b"abc"))[..16], *"ba7816bf8f01cfea");
}
