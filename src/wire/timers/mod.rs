//! Time limits that cost almost nothing while they are kept, shared by HTTP/1.1 and HTTP/2 on both sides.

pub(super) mod log_throttle;
pub(super) mod wait_timeout;
pub(super) mod write_stall;
