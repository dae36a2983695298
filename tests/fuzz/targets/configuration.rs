//! Fuzz target for configurations. A configuration is read or refused with a location for each error, and no error message
//! contains a secret.

use steadfast::config::{Config, Location, Overrides};

const SECRET: &str = "sk-canary-5f2d9c";

/// Runs one input.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let env = |_: &str| Some(SECRET.to_owned());
    match Config::from_toml(text, "fuzz.toml", &env, &Overrides::default()) {
        Ok(config) => {
            assert!(!config.upstreams.is_empty() && !config.server.listen.is_empty());
            assert!(!format!("{config:?}").contains(SECRET));
            // A valid configuration is read to the same value again.
            let again = Config::from_toml(text, "fuzz.toml", &env, &Overrides::default());
            assert_eq!(again.as_ref(), Ok(&config));
        }
        Err(errors) => {
            assert!(!errors.problems().is_empty());
            for problem in errors.problems() {
                assert!(!matches!(problem.location, Location::Flag(_)) && !problem.message.is_empty());
                // If the text itself contains the secret, it may be in the place of a name, which is printed.
                assert!(
                    text.contains(SECRET) || !problem.to_string().contains(SECRET),
                    "{problem}"
                );
                assert!(!problem.to_string().contains('\n'), "{problem}");
            }
        }
    }
}
