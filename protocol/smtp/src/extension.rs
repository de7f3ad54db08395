//! What the server announces, and what a client reads out of it.

use mail::date::SentDate;
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
    /// FUTURERELEASE (RFC 4865): how many seconds a message is held, and until when (unix seconds).
    pub future_release: Option<(u64, u64)>,
    /// DELIVERBY (RFC 2852): the shortest time that can be asked for; zero where none is said.
    pub deliver_by: Option<u64>,
    /// MT-PRIORITY (RFC 6710).
    pub mt_priority: bool,
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
        if let Some((seconds, until)) = self.future_release {
            let until = SentDate::utc(i64::try_from(until).unwrap_or(i64::MAX)).rfc3339();
            lines.push(format!("FUTURERELEASE {seconds} {until}"));
        }
        match self.deliver_by {
            Some(0) => lines.push("DELIVERBY".to_owned()),
            Some(seconds) => lines.push(format!("DELIVERBY {seconds}")),
            None => {}
        }
        if self.mt_priority {
            lines.push("MT-PRIORITY".to_owned());
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
                "FUTURERELEASE" => {
                    let seconds = words.next().and_then(|word| word.parse().ok());
                    let until = words.next().and_then(SentDate::parse_rfc3339);
                    let until = until.and_then(|date| u64::try_from(date.unix_seconds).ok());
                    found.future_release = seconds.zip(until);
                }
                "DELIVERBY" => {
                    found.deliver_by = Some(words.next().and_then(|word| word.parse().ok()).unwrap_or(0));
                }
                "MT-PRIORITY" => found.mt_priority = true,
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
            future_release: Some((86_400, 1_796_126_400)),
            deliver_by: Some(60),
            mt_priority: true,
        };
        let lines = all.lines();
        assert_eq!(Extensions::parse(lines.iter().map(String::as_str)), all);
        assert!(lines.contains(&"LIMITS RCPTMAX=1000 MAILMAX=100".to_owned()));
        assert!(lines.contains(&"FUTURERELEASE 86400 2026-12-01T12:00:00Z".to_owned()));
        let odd = [
            "",
            "FUTURERELEASE x y",
            "size",
            "X-FOO 1",
            "AUTH=LOGIN PLAIN",
            "auth GSSAPI login",
            "LIMITS RCPTMAX=x FOO",
        ];
        let expected = Extensions { size: Some(0), auth: vec![Mechanism::Login], ..Extensions::default() };
        assert_eq!(Extensions::parse(odd), expected);
        assert!(Extensions::default().lines().is_empty());
    }
}
