//! The parameters of a header field such as `form-data; name="model"`.

/// A header field's value that has parameters: the part before the first `;`, and the rest.
pub(super) struct ParameterizedValue<'a> {
    /// The part before the first `;`, without white space around it.
    pub essence: &'a [u8],
    /// The parameters.
    pub parameters: Parameters<'a>,
}

impl<'a> ParameterizedValue<'a> {
    pub fn new(value: &'a [u8]) -> Self {
        let end = memchr::memchr(b';', value).unwrap_or(value.len());
        let (essence, rest) = value.split_at(end);
        Self {
            essence: essence.trim_ascii(),
            parameters: Parameters { rest },
        }
    }

    /// The value of the parameter `name`, whose case does not matter.
    ///
    /// # Errors
    /// If a parameter cannot be read, or if the parameter is there twice.
    pub fn parameter(self, name: &str) -> Result<Option<&'a [u8]>, ParameterProblem> {
        let mut found = None;
        for parameter in self.parameters {
            let parameter = parameter?;
            if parameter.is(name) && found.replace(parameter.value).is_some() {
                return Err(ParameterProblem::Duplicate);
            }
        }
        Ok(found)
    }
}

/// One parameter. A value in quotation marks is given without them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parameter<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
}

impl Parameter<'_> {
    /// Whether the parameter has this name. Case does not matter (RFC 2045 §5.1).
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The reasons why the parameters of a header field cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ParameterProblem {
    /// The parameters are not written as `; name=value`.
    Syntax,
    /// A value contains a backslash before a quotation mark. Some parsers end the value there, and some do not.
    EscapedQuote,
    /// A parameter that must be there once is there twice.
    Duplicate,
}

/// Reads parameters one after the other. After an error there are no more.
pub(super) struct Parameters<'a> {
    /// The text that has not been read. It is empty or begins with `;`.
    rest: &'a [u8],
}

impl<'a> Parameters<'a> {
    fn read(&mut self) -> Result<Option<Parameter<'a>>, ParameterProblem> {
        let rest = std::mem::take(&mut self.rest);
        let Some(text) = rest.strip_prefix(b";").map(<[u8]>::trim_ascii_start) else {
            return Ok(None);
        };
        // Some clients write a `;` after the last parameter.
        if text.is_empty() {
            return Ok(None);
        }
        let length = text.iter().take_while(|byte| is_token(**byte)).count();
        let (name, text) = text.split_at(length);
        let text = text.strip_prefix(b"=").ok_or(ParameterProblem::Syntax)?;
        let (value, text) = match text.strip_prefix(b"\"") {
            Some(text) => quoted(text)?,
            None => {
                let is_plain = |byte: &&u8| is_token(**byte) || !byte.is_ascii();
                match text.iter().take_while(is_plain).count() {
                    0 => return Err(ParameterProblem::Syntax),
                    length => text.split_at(length),
                }
            }
        };
        let text = text.trim_ascii_start();
        if name.is_empty() || !(text.is_empty() || text.starts_with(b";")) {
            return Err(ParameterProblem::Syntax);
        }
        self.rest = text;
        Ok(Some(Parameter { name, value }))
    }
}

impl<'a> Iterator for Parameters<'a> {
    type Item = Result<Parameter<'a>, ParameterProblem>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// Divides the text after a quotation mark into the value before the next quotation mark and the text after it.
fn quoted(text: &[u8]) -> Result<(&[u8], &[u8]), ParameterProblem> {
    let end = memchr::memchr(b'"', text).ok_or(ParameterProblem::Syntax)?;
    let (value, rest) = text.split_at(end);
    match value.last() {
        Some(b'\\') => Err(ParameterProblem::EscapedQuote),
        _ => Ok((value, rest.strip_prefix(b"\"").unwrap_or_default())),
    }
}

/// Whether a byte may stand in a token (RFC 9110 §5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Vec<(String, String)>, ParameterProblem> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let parameters = ParameterizedValue::new(value.as_bytes()).parameters;
        parameters
            .map(|parameter| parameter.map(|parameter| (text(parameter.name), text(parameter.value))))
            .collect()
    }

    #[test]
    fn parameters_are_tokens_or_quoted_strings() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for (value, expected) in [
            ("a", vec![]),
            ("a;", vec![]),
            ("a; b=c", vec![pair("b", "c")]),
            ("a;b=c ; d=\"e; f=g\"", vec![pair("b", "c"), pair("d", "e; f=g")]),
            ("a; b=\"\"; c=\u{e9}", vec![pair("b", ""), pair("c", "\u{e9}")]),
            ("a; b=\"c\\d\";", vec![pair("b", "c\\d")]),
            ("a; b*=utf-8''c", vec![pair("b*", "utf-8''c")]),
        ] {
            assert_eq!(read(value), Ok(expected), "{value}");
        }
        for value in [
            "a; b",
            "a; =c",
            "a; b=",
            "a; b=; c=d",
            "a; b=\"c",
            "a; b=\"c\"d",
            "a; b=c d",
            "a;;b=c",
            "a; b =c",
            "a; b= c",
        ] {
            assert_eq!(read(value), Err(ParameterProblem::Syntax), "{value}");
        }
        for value in ["a; b=\"c\\\"d\"", "a; b=\"c\\\\\""] {
            assert_eq!(read(value), Err(ParameterProblem::EscapedQuote), "{value}");
        }
    }

    #[test]
    fn a_parameter_is_found_once() {
        let find = |value: &'static str| ParameterizedValue::new(value.as_bytes()).parameter("b");
        assert_eq!(find("a; B=c"), Ok(Some(&b"c"[..])));
        assert_eq!(find("a; c=b"), Ok(None));
        assert_eq!(find("a; b=c; b=c"), Err(ParameterProblem::Duplicate));
    }
}
