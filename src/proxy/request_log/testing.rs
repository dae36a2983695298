//! Captures the lines of the access log in tests.

use std::{
    io,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt as _, registry::Registry};

/// The lines that were logged on this thread while the guard of [`AccessLog::capture`] lives.
#[derive(Clone, Default)]
pub(in crate::proxy) struct AccessLog(Arc<Mutex<Vec<u8>>>);

impl AccessLog {
    /// Captures what this thread logs.
    pub fn capture(&self) -> DefaultGuard {
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(self.clone());
        tracing::subscriber::set_default(Registry::default().with(layer))
    }

    /// The lines of the access log.
    pub fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().expect("no panic").clone()).expect("text");
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        lines.filter(|line: &Value| line["target"] == "access").collect()
    }

    /// The only line of the access log.
    pub fn only_line(&self) -> Value {
        let mut lines = self.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }
}

impl io::Write for AccessLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for AccessLog {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
