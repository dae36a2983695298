//! The ways in which an event stream says that the response has ended.

/// How an event stream said that the response has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Terminal {
    /// `response.completed`.
    Completed,
    /// `response.failed`.
    Failed,
    /// `response.incomplete`.
    Incomplete,
    /// `[DONE]`, which ends a stream of chat completions.
    Done,
    /// `message_stop`, which ends a stream of the Messages API.
    Stopped,
}
