//! `steadfast key`: a new client key.

use std::io::{self, IsTerminal as _, Write as _};

use sha2::{Digest as _, Sha256};

use super::{Problem, cli::KeyArgs};

/// What keys begin with, so that people and secret scanners know one when they see it.
const PREFIX: &str = "sk-steadfast-";

/// Makes a key of 256 random bits, and prints it once with the lines to paste.
pub(super) fn key(args: &KeyArgs) -> Result<(), Problem> {
    let key = made(&random()?);
    let digest: String = Sha256::digest(&key).iter().map(|byte| format!("{byte:02x}")).collect();
    let (name, group) = (&args.name, &args.group);
    let lines = format!("[[key]]\nname = \"{name}\"\nsha256 = \"{digest}\"\ngroup = \"{group}\"\n");
    // Apart, so that the lines can be appended to a file without the key: the key is not to be kept here.
    let mut shown = io::stderr().lock();
    writeln!(
        shown,
        "The key, shown only now; give it to who is to call:\n\n  {key}\n"
    )?;
    if io::stdout().is_terminal() {
        writeln!(shown, "Into the configuration, or a file of keys:\n")?;
    }
    let mut pasted = io::stdout().lock();
    pasted.write_all(lines.as_bytes())?;
    pasted.flush()?;
    Ok(())
}

fn random() -> Result<[u8; 32], Problem> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits).map_err(|error| format!("the system gives no random bits: {error}"))?;
    Ok(bits)
}

/// The prefix and the bits in the alphabet of base64url (RFC 4648 section 5), without padding.
fn made(bits: &[u8; 32]) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_all_their_bits_and_are_never_the_same() {
        let (one, other) = (random().expect("bits"), random().expect("bits"));
        assert_ne!(one, other);
        assert_eq!(made(&one).len(), PREFIX.len() + 43);
        assert_eq!(made(&[0xff; 32]), format!("{PREFIX}{}8", "_".repeat(42)));
    }
}
