//! `steadfast key`: makes a client key.

use std::io::{self, IsTerminal as _, Write as _};

use sha2::{Digest as _, Sha256};

use super::{cli::KeyArgs, error::AppError};

/// The prefix of client keys. People and secret scanners recognize a key by it.
const PREFIX: &str = "sk-steadfast-";

/// Makes a key of 256 random bits. Prints the key on standard error, and the lines for the configuration on standard output.
pub(super) fn key(args: &KeyArgs) -> Result<(), AppError> {
    let key = encode_key(&random_bits()?);
    let digest: String = Sha256::digest(&key).iter().map(|byte| format!("{byte:02x}")).collect();
    let (name, group) = (&args.name, &args.group);
    let lines = format!("[[key]]\nname = \"{name}\"\nsha256 = \"{digest}\"\ngroup = \"{group}\"\n");
    // The two outputs are separate, so that the lines can be appended to a file without the key.
    let mut shown = io::stderr().lock();
    writeln!(
        shown,
        "This is the key. It is shown only once; give it to its user:\n\n  {key}\n"
    )?;
    if io::stdout().is_terminal() {
        writeln!(shown, "Add these lines to the configuration, or to a file of keys:\n")?;
    }
    let mut pasted = io::stdout().lock();
    pasted.write_all(lines.as_bytes())?;
    pasted.flush()?;
    Ok(())
}

fn random_bits() -> Result<[u8; 32], AppError> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits)
        .map_err(|error| format!("cannot make a key: the system provides no random bits: {error}"))?;
    Ok(bits)
}

/// The key: the prefix, and the bits in base64url (RFC 4648 §5) without padding.
fn encode_key(bits: &[u8; 32]) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_contain_all_bits_and_differ() {
        let (one, other) = (random_bits().expect("random bits"), random_bits().expect("random bits"));
        assert_ne!(one, other);
        assert_eq!(encode_key(&one).len(), PREFIX.len() + 43);
        assert_eq!(encode_key(&[0xff; 32]), format!("{PREFIX}{}8", "_".repeat(42)));
    }
}
