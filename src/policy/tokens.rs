//! An estimate of tokens from bytes, for requests for which the real token count is not known yet.

/// The approximate average number of bytes per token of English text or source code.
pub const BYTES_PER_TOKEN: u64 = 4;

/// The number of tokens that a request body of this many decompressed bytes probably costs, rounded up.
pub const fn estimated(body_bytes: u64) -> u64 {
    body_bytes.div_ceil(BYTES_PER_TOKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_started_token_counts_as_a_token() {
        assert_eq!([0, 1, 4, 5, u64::MAX].map(estimated), [0, 1, 1, 2, 1 << 62]);
    }
}
