//! An authenticator app, from RFC 6238, RFC 4226 and FIPS 180-4 alone: nothing of it is shared with
//! the gateway.

/// What a phone holds after it has read a QR code.
pub(crate) struct Authenticator(Vec<u8>);

// === impl Authenticator ===

impl Authenticator {
    /// Reads the `secret` of an `otpauth://` URL.
    pub(crate) fn scan(url: &str) -> Self {
        let (head, query) = url.split_once('?').expect("a URL with parameters");
        assert!(head.starts_with("otpauth://totp/"), "{url}");
        let parameter = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name));
        assert_eq!(parameter("digits=").unwrap_or("6"), "6");
        assert_eq!(parameter("period=").unwrap_or("30"), "30");
        assert_eq!(parameter("algorithm=").unwrap_or("SHA1"), "SHA1");
        Self(base32(parameter("secret=").expect("a secret")))
    }

    /// The six digits shown at this time.
    pub(crate) fn shows(&self, unix_seconds: i64) -> String {
        let step = u64::try_from(unix_seconds / 30).unwrap();
        let mac = hmac(&self.0, &step.to_be_bytes());
        let at = usize::from(mac[19] & 15);
        let word = u32::from_be_bytes(mac[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
        format!("{:06}", word % 1_000_000)
    }
}

/// RFC 4648, section 6, without padding.
fn base32(text: &str) -> Vec<u8> {
    let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::new());
    for letter in text.bytes() {
        let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|known| *known == letter);
        bits = (bits << 5) | u32::try_from(value.expect("base32")).unwrap();
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 255).unwrap());
        }
    }
    bytes
}

/// RFC 2104 with SHA-1; keys of at most one block.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 20] {
    let padded =
        |with: u8| -> Vec<u8> { (0..64).map(|at| key.get(at).copied().unwrap_or(0) ^ with).collect() };
    let inner = sha1(&[padded(0x36), message.to_vec()].concat());
    sha1(&[padded(0x5c), inner.to_vec()].concat())
}

/// FIPS 180-4, section 6.1.
#[expect(clippy::many_single_char_names, reason = "the standard's own names")]
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend((message.len() as u64 * 8).to_be_bytes());
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    for block in padded.chunks(64) {
        let mut words: Vec<u32> =
            block.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
        for at in 16..80 {
            words.push((words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1));
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (round, word) in words.iter().enumerate() {
            let (mixed, constant) = match round / 20 {
                0 => ((b & c) | (!b & d), 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc_u32),
                _ => (b ^ c ^ d, 0xca62_c1d6),
            };
            let next = a.rotate_left(5).wrapping_add(mixed).wrapping_add(e).wrapping_add(constant);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next.wrapping_add(*word));
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

#[test]
fn the_authenticator_keeps_to_its_standards() {
    assert_eq!(sha1(b"abc")[..4], [0xa9, 0x99, 0x3e, 0x36]);
    let phone = Authenticator::scan("otpauth://totp/x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=y");
    assert_eq!(phone.0, b"12345678901234567890");
    // RFC 6238, appendix B: the last six of eight digits.
    for (seconds, code) in [(59, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")] {
        assert_eq!(phone.shows(seconds), code);
    }
}
