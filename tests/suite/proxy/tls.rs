//! TLS by rustls, HTTP/1.1 and HTTP/2 by ALPN.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::world::World;

/// A certificate for `localhost` by an authority made for the occasion: chain, key, authority.
fn certificate() -> (String, String, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    (leaf.pem(), key.serialize_pem(), authority.pem())
}

#[tokio::test]
async fn clients_choose_http_1_or_2_in_the_handshake() {
    let (chain, key, authority) = certificate();
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("cert.pem"), &chain).unwrap();
    std::fs::write(files.path().join("key.pem"), &key).unwrap();
    let world = World::with(|setup| {
        let folder = files.path().display();
        setup.add(&format!(
            "[server.tls]\ncertificate = \"{folder}/cert.pem\"\nprivate_key = \"{folder}/key.pem\""
        ));
        setup.trust = Some(authority.clone());
    })
    .await;
    let ann = world.user("ann").await;
    let answer = world.chat(&ann).send().await;
    assert_eq!((answer.status, answer.version), (200, http::Version::HTTP_2), "{}", answer.text());

    let trusted = reqwest::Certificate::from_pem(authority.as_bytes()).unwrap();
    let client =
        reqwest::Client::builder().no_proxy().tls_certs_only([trusted]).http1_only().build().unwrap();
    let call =
        world.post_with(&client, "/v1/chat/completions").bearer(&ann.key).json(&crate::world::chat_request());
    let answer = call.send().await;
    assert_eq!((answer.status, answer.version), (200, http::Version::HTTP_11));
    assert_eq!(world.upstream.hits(), 2);
}
