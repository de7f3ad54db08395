//! Emails and accounts that go, generations that come.
