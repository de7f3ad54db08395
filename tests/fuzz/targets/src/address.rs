//! Addresses of the envelope: what was parsed is written so that it is parsed as the same.

use mail::address::{Address, Domain, Path};

/// A text.
pub fn run(data: &[u8]) {
    if let Ok((path, after)) = Path::take(data) {
        assert!(data.ends_with(after) && after.len() < data.len());
        if let Path::Address(address) = &path {
            check(address);
            let written = format!("<{address}> ");
            assert_eq!(Path::take(written.as_bytes()), Ok((path.clone(), &b" "[..])), "{written}");
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(address) = Address::parse(text) {
        check(&address);
    }
    if let Ok(domain) = Domain::parse(text) {
        check_domain(&domain);
    }
}

fn check(address: &Address) {
    let written = address.to_string();
    assert_eq!(Address::parse(&written).as_ref(), Ok(address), "{written}");
    assert!(written.len() <= 2 * mail::address::ADDRESS_BYTES_MAX, "{written}");
    assert!(!written.chars().any(char::is_control), "{written:?}");
    check_domain(address.domain());
    let stored = postcard::to_stdvec(address).unwrap();
    assert_eq!(postcard::from_bytes::<Address>(&stored).as_ref(), Ok(address));
    // Looking up what was looked up finds the same.
    let folded = mail::address::fold_local_part(address.local());
    assert_eq!(mail::address::fold_local_part(&folded), folded);
    assert_eq!(address.key(), format!("{folded}@{}", address.domain().ascii()));
}

fn check_domain(domain: &Domain) {
    assert!(domain.ascii().is_ascii() && domain.ascii().len() <= mail::address::DOMAIN_BYTES_MAX);
    assert!(
        domain.ascii().bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()
            || byte == b'I'
            || byte == b'P'),
        "{domain}"
    );
    assert_eq!(Domain::parse(&domain.ascii()).as_ref(), Ok(domain));
    let _ = domain.unicode();
}
