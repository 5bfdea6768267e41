//! Ids and references: what is one, and that neither changes on its way through.
#![no_main]

use http::HeaderValue;
use libfuzzer_sys::fuzz_target;
use mcp_session_layer::{SessionId, SessionRef};

fuzz_target!(|bytes: &[u8]| {
    let is_id =
        (1..=1024).contains(&bytes.len()) && bytes.iter().all(|byte| (0x21..=0x7E).contains(byte));
    if let Ok(value) = HeaderValue::from_bytes(bytes) {
        match SessionId::from_header(&value) {
            Ok(id) => {
                assert!(is_id);
                assert_eq!(id.expose().as_bytes(), bytes);
                assert_eq!(id.to_header(), value);
                let reference = id.reference();
                assert_eq!(reference.to_string().parse(), Ok(reference));
                assert!(
                    !format!("{id:?}").contains(id.expose())
                        || "SessionId(hidden)".contains(id.expose())
                );
            }
            Err(_) => assert!(!is_id),
        }
    }
    if let Ok(text) = str::from_utf8(bytes) {
        assert_eq!(text.parse::<SessionId>().is_ok(), is_id);
        if let Ok(reference) = text.parse::<SessionRef>() {
            assert_eq!(reference.to_string(), text);
        }
    }
});
