#![allow(missing_docs)]
#[derive(Default)]
pub struct RequestFacts {
    pub model: Option<String>,
    pub prompt_cache_key: Option<String>,
    pub session_id: Option<String>,
    pub previous_response_id: Option<String>,
}
pub struct BodyInspector;
impl BodyInspector {
    pub fn new(_: Coding, _: u64) -> Self {
        Self
    }
    pub fn feed(&mut self, _: &[u8]) -> Result<(), InspectError> {
        Ok(())
    }
    pub fn finish(self) -> Result<RequestFacts, InspectError> {
        Ok(RequestFacts::default())
    }
}
pub struct Refusal {
    pub problem: String,
    pub offset: u64,
}
pub enum InspectError {
    Refused(Refusal),
    TooLarge { limit: u64 },
    Undecodable(String),
}
#[derive(Clone, Copy)]
pub enum Coding {
    Identity,
    Unknown,
}
impl Coding {
    pub fn from_header(_: &str) -> Self {
        Self::Unknown
    }
}
pub struct ResponseReader;
impl ResponseReader {
    pub fn events() -> Self {
        Self
    }
    pub fn json() -> Self {
        Self
    }
    pub fn feed(&mut self, _: &[u8]) {}
    pub fn response_id(&self) -> Option<&str> {
        None
    }
    pub fn is_terminal(&self) -> bool {
        false
    }
}
