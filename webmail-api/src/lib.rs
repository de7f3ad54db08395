//! webmail-api
