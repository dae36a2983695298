//! Bodies in both directions.

pub(super) mod kept;
pub(super) mod relay;
pub(super) mod replay;
pub(super) mod request;
