//! Time limits.

pub(super) mod alarm;
pub(super) mod log_throttle;
pub(super) mod write_stall;
