//! Time limits for HTTP/1.1 and HTTP/2 on both sides. They cost almost nothing as long as they are not exceeded.

pub(super) mod log_throttle;
pub(super) mod wait_timeout;
pub(super) mod write_stall;
