//! The endpoints that take forms with sounds and images: transcriptions, translations, and edits of images.

use serde_json::{Value, json};

use super::super::account::Account;
use super::super::api_error::ApiError;
use super::super::outgoing::SimResponse;
use super::super::responses::{answer_text, tokens, unix_seconds};
use super::forms::SimForm;
use super::page::found;
use super::parsed::ParsedRequest;

/// A PNG image of one pixel in base64.
const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";

impl Account {
    /// Answers `POST /v1/audio/transcriptions` and `translations`.
    pub(in crate::sim) fn transcribe(&self, call: &ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        let form = SimForm::read(call)?;
        self.check_model(&form.json())?;
        let (_, sound) = form.file("file")?;
        let text = answer_text(&self.config.name, self.config.deltas);
        let (input, output) = (tokens(sound.len() as u64), tokens(text.len() as u64));
        Ok(found(
            &json!({"text": text, "usage": {"type": "tokens", "input_tokens": input, "output_tokens": output,
            "total_tokens": input + output}}),
        ))
    }

    /// Answers `POST /v1/images/edits` and `variations`.
    pub(in crate::sim) fn edit_image(&self, call: &ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        let form = SimForm::read(call)?;
        let fields = form.json();
        self.check_model(&fields)?;
        form.file("image").or_else(|_| form.file("image[]"))?;
        let count = fields["n"].as_str().map(str::parse);
        images(count.unwrap_or(Ok(1)).unwrap_or_default())
    }

    /// Answers `POST /v1/images/generations`.
    pub(in crate::sim) fn draw_image(&self, call: ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        self.check_model(&request)?;
        if request.get("prompt").is_none() {
            return Err(ApiError::missing("prompt"));
        }
        images(request.get("n").map_or(1, |n| n.as_u64().unwrap_or_default()))
    }
}

fn images(count: u64) -> Result<SimResponse, ApiError> {
    if !(1..=10).contains(&count) {
        return Err(ApiError::invalid("n", "must be between 1 and 10"));
    }
    let data: Vec<Value> = (0..count).map(|_| json!({"b64_json": PIXEL})).collect();
    Ok(found(&json!({"created": unix_seconds(), "data": data})))
}
