//! A login that is refused in one region, on its way to a client of another: what the directory says becomes an
//! [`Answer`], and becomes again what services know how to tell.

use std::time::Duration;

use directory::{AuthError, Temporary};

use crate::call::Answer;
use crate::{LinkError, Unreachable};

impl Answer {
    /// What is answered to a login that was refused with this.
    pub fn refusing(error: &AuthError) -> Self {
        match error {
            AuthError::Rejected => Self::Rejected,
            AuthError::Throttled { retry_after } => Self::Throttled { seconds: retry_after.as_secs().max(1) },
            AuthError::Busy => Self::Busy,
            // Moved on a moment ago, or this node's view of the table is another than that of who asks.
            AuthError::Elsewhere(_) | AuthError::Temporary(_) => Self::Unavailable,
        }
    }

    /// Why a login is refused that was answered with this, and not with what leads on. `service` is what was asked for.
    pub fn refusal(&self, service: &str) -> AuthError {
        match self {
            Self::Rejected => AuthError::Rejected,
            Self::Throttled { seconds } => {
                AuthError::Throttled { retry_after: Duration::from_secs(*seconds) }
            }
            Self::Busy => AuthError::Busy,
            Self::Unavailable => unavailable("the account's region has trouble".to_owned()),
            Self::NotServed => unavailable(format!("the account's region serves no {service}")),
            Self::LoggedIn { .. } | Self::Verifier(_) | Self::Recipient(_) | Self::Mail => {
                unavailable("the account's region is not understood".to_owned())
            }
        }
    }
}

impl From<Unreachable> for AuthError {
    fn from(error: Unreachable) -> Self {
        unavailable(error.to_string())
    }
}

impl From<LinkError> for AuthError {
    fn from(error: LinkError) -> Self {
        unavailable(error.to_string())
    }
}

fn unavailable(why: String) -> AuthError {
    AuthError::Temporary(Temporary(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client hears from another region what it would hear at home.
    #[test]
    fn a_refusal_is_the_same_on_the_other_side() {
        let check = |error: AuthError, expected: &str| {
            assert_eq!(Answer::refusing(&error).refusal("IMAP").to_string(), expected);
        };
        check(AuthError::Rejected, "authentication failed");
        check(AuthError::Busy, "too many logins at one time");
        let throttled = |seconds| AuthError::Throttled { retry_after: Duration::from_secs(seconds) };
        check(throttled(90), "too many failed logins, try again in 90 seconds");
        check(throttled(0), "too many failed logins, try again in 1 seconds");
        let trouble = "directory not available: the account's region has trouble";
        check(AuthError::Temporary(Temporary("a secret of that region".to_owned())), trouble);
        check(AuthError::Elsewhere("eu".parse().unwrap()), trouble);
    }

    #[test]
    fn what_is_no_refusal_is_no_wrong_password() {
        for answer in [Answer::NotServed, Answer::Mail, Answer::LoggedIn { text: String::new() }] {
            assert!(answer.refusal("IMAP").is_temporary(), "{answer:?}");
        }
    }
}
