//! Request bodies.

pub(super) mod inspect;
pub(super) mod scanner;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
