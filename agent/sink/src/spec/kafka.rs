//! What a sink into a topic of Kafka is.

use super::host_and_port;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Messages into a topic of Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSpec {
    /// Those that are asked for the others, in this order. One at least.
    pub brokers: Vec<Broker>,
    /// To these and to all that they name.
    pub tls: bool,
    pub topic: String,
    pub mechanism: SaslMechanism,
    /// `USER:PASSWORD`, read for each connection; without it nobody logs in.
    pub credentials_file: Option<PathBuf>,
    /// Certificates of authorities, PEM; the system's when there is none.
    pub ca_file: Option<PathBuf>,
    /// How long a request may take.
    pub timeout: Duration,
}

impl KafkaSpec {
    pub(super) fn target(&self) -> String {
        let brokers: Vec<String> = self.brokers.iter().map(Broker::to_string).collect();
        format!("{} {}", brokers.join(","), self.topic)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl std::str::FromStr for Broker {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "must be HOST:PORT, each";
        // What all brokers use when nothing else is said.
        const PORT: u16 = 9092;
        let (host, port) = host_and_port(text).ok_or(FORM)?;
        if host.contains('@') {
            return Err("must not hold a password: put it into `credentials_file`");
        }
        Ok(Broker {
            host: host.to_owned(),
            port: port.unwrap_or(PORT),
        })
    }
}

/// How a password is reported or proved, by the words of Kafka's `sasl.mechanism`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SaslMechanism {
    /// RFC 4616: the password itself.
    Plain,
    /// RFC 7677.
    ScramSha256,
    #[default]
    ScramSha512,
}

impl SaslMechanism {
    const ALL: [SaslMechanism; 3] = [
        SaslMechanism::Plain,
        SaslMechanism::ScramSha256,
        SaslMechanism::ScramSha512,
    ];

    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }

    #[must_use]
    pub fn of_word(word: &str) -> Option<SaslMechanism> {
        SaslMechanism::ALL.into_iter().find(|m| m.word() == word)
    }
}

/// Whether a topic may be called so (`org.apache.kafka.common.internals.Topic`).
#[must_use]
pub fn is_topic(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !matches!(text, "" | "." | "..") && text.len() <= 249 && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_and_topics() {
        let parse = |text: &str| text.parse::<Broker>();
        for (text, shown) in [
            ("a:9093", "a:9093"),
            ("kafka.example", "kafka.example:9092"),
            ("[::1]:5", "[::1]:5"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), shown);
        }
        for bad in ["", ":1", "a:0", "a:x", "a/b", "u:p@a:1", "tls://a:1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(is_topic("keytrail.events_1-a"));
        let long = "x".repeat(250);
        for bad in ["", ".", "..", "a b", "a/b", long.as_str()] {
            assert!(!is_topic(bad), "{bad}");
        }
        let plain = SaslMechanism::of_word("PLAIN");
        assert_eq!(plain, Some(SaslMechanism::Plain));
        assert_eq!(SaslMechanism::of_word("GSSAPI"), None);
    }
}
