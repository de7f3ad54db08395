//! What the server announces, and what a client reads out of it.

use sasl::Mechanism;

/// What a server can do, as its answer to EHLO or LHLO says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extensions {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// SIZE (RFC 1870); `Some(0)` has no fixed limit.
    pub size: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// BINARYMIME (RFC 3030).
    pub binary_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced_status_codes: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// AUTH (RFC 4954): the mechanisms that we know as well.
    pub auth: Vec<Mechanism>,
    /// LIMITS RCPTMAX (RFC 9422): recipients of a transaction.
    pub recipients_max: Option<u32>,
    /// LIMITS MAILMAX (RFC 9422): transactions of a session.
    pub transactions_max: Option<u32>,
}

impl Extensions {
    /// The lines of the answer after the first.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut say = |announced: bool, line: &str| {
            if announced {
                lines.push(line.to_owned());
            }
        };
        say(self.pipelining, "PIPELINING");
        say(self.eight_bit_mime, "8BITMIME");
        say(self.binary_mime, "BINARYMIME");
        say(self.chunking, "CHUNKING");
        say(self.smtputf8, "SMTPUTF8");
        say(self.dsn, "DSN");
        say(self.enhanced_status_codes, "ENHANCEDSTATUSCODES");
        say(self.starttls, "STARTTLS");
        if let Some(size) = self.size {
            lines.push(format!("SIZE {size}"));
        }
        let limits = [("RCPTMAX", self.recipients_max), ("MAILMAX", self.transactions_max)];
        let limits: Vec<String> =
            limits.iter().filter_map(|(name, limit)| limit.map(|limit| format!("{name}={limit}"))).collect();
        if !limits.is_empty() {
            lines.push(format!("LIMITS {}", limits.join(" ")));
        }
        if !self.auth.is_empty() {
            let names: Vec<&str> = self.auth.iter().map(|mechanism| mechanism.name()).collect();
            lines.push(format!("AUTH {}", names.join(" ")));
        }
        lines
    }

    /// Reads the lines of an answer after the first; what is unknown or malformed is passed over.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        for line in lines {
            let mut words = line.split_ascii_whitespace();
            match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "PIPELINING" => found.pipelining = true,
                "SIZE" => found.size = Some(words.next().and_then(|word| word.parse().ok()).unwrap_or(0)),
                "8BITMIME" => found.eight_bit_mime = true,
                "BINARYMIME" => found.binary_mime = true,
                "SMTPUTF8" => found.smtputf8 = true,
                "CHUNKING" => found.chunking = true,
                "DSN" => found.dsn = true,
                "ENHANCEDSTATUSCODES" => found.enhanced_status_codes = true,
                "STARTTLS" => found.starttls = true,
                "AUTH" => found.auth = words.filter_map(|word| word.parse().ok()).collect(),
                "LIMITS" => {
                    for limit in words {
                        match limit.split_once('=') {
                            Some(("RCPTMAX", number)) => found.recipients_max = number.parse().ok(),
                            Some(("MAILMAX", number)) => found.transactions_max = number.parse().ok(),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announced_is_read_back() {
        let all = Extensions {
            pipelining: true,
            size: Some(52_428_800),
            eight_bit_mime: true,
            binary_mime: true,
            smtputf8: true,
            chunking: true,
            dsn: true,
            enhanced_status_codes: true,
            starttls: true,
            auth: vec![Mechanism::Plain, Mechanism::ScramSha256],
            recipients_max: Some(1000),
            transactions_max: Some(100),
        };
        let lines = all.lines();
        assert_eq!(Extensions::parse(lines.iter().map(String::as_str)), all);
        assert!(lines.contains(&"LIMITS RCPTMAX=1000 MAILMAX=100".to_owned()));
        let odd = ["", "size", "X-FOO 1", "AUTH=LOGIN PLAIN", "auth GSSAPI login", "LIMITS RCPTMAX=x FOO"];
        let expected = Extensions { size: Some(0), auth: vec![Mechanism::Login], ..Extensions::default() };
        assert_eq!(Extensions::parse(odd), expected);
        assert!(Extensions::default().lines().is_empty());
    }
}
