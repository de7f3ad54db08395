//! Who exists: domains, accounts, aliases, mailing lists, and how they prove who they are.
//!
//! The *registry* is one log that knows the domains; each domain is a log of its own, a sorted table of names. All of
//! them fold into a [`table::TableState`]. Services ask two things: where mail for an address goes ([`route`]), and
//! whether somebody is who they say they are ([`login`]). Administrators change things through [`admin`].
//!
//! That a name does not exist, or that a password is wrong, is said only after a fresh look at the log's head: another
//! node may have changed it a moment ago.
//!
//! Not here: mailboxes and messages (`storage`), the SASL exchange (`sasl`), who may reach the admin API
//! (`webmail-api`). Start reading at [`Directory`] and [`entry`].

pub mod access;
pub mod account;
pub mod admin;
pub mod app_password;
pub mod authorization;
pub mod config;
pub mod credential;
pub mod entry;
pub mod grant;
mod hasher;
pub mod homes;
pub mod journey;
pub mod logged_in;
pub mod login;
pub mod look;
pub mod route;
pub mod subscription;
pub mod table;
pub mod throttle;
pub mod verify;

pub use access::AccessToken;
pub use admin::{AccountStores, AdminError};
pub use app_password::{Service, ServiceSet};
pub use authorization::{Agreed, AuthorizationCode, Redeemed, Redemption};
pub use config::Config;
pub use grant::{Grant, GrantError, GrantId, NewGrant, RefreshToken};
pub use homes::Homes;
pub use logged_in::Login;
pub use login::{AuthError, PlainLogin, Principal, ScramLogin};
pub use look::{Directory, LogKeys, Parts, StartError, Temporary};
pub use route::{AccountRoute, Expansion, Resolution, Route, Target};
pub use subscription::{KeptSubscription, Subscription, SubscriptionId, SubscriptionKeys};
