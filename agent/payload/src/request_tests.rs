use super::*;
use crate::tests::{TOKEN, matcher};

#[test]
fn ids_and_secrets_are_not_reported() {
    let m = matcher(&[TOKEN]);
    let token = String::from_utf8(TOKEN.to_vec()).unwrap();
    let cases = [
        ("/v1/items?token=abc#x", "/v1/items"),
        ("/users/12345/keys", "/users/{id}/keys"),
        ("/o/3f2504e0-4f89-11d3-9a0c-0305e82c3301/x", "/o/{id}/x"),
        (
            "/repos/octo-org/hello_world2/contents/README.md",
            "/repos/octo-org/hello_world2/contents/README.md",
        ),
        (
            "/bot7342037359:AAHI25ES9xCOMPokpYoz-p8XVrZUdygo2J4/getMe",
            "/{id}/getMe",
        ),
        (
            "/services/T00000000/B0123ABCD/XXXXkk8sdlkj29sdlkjxoiuw",
            "/services/{id}/{id}/{id}",
        ),
        ("https://user:pw@host.example/a/b?x", "/a/b"),
        ("/a%2Fb/c", "/{id}/c"),
        ("*", ""),
        ("host.example:443", ""),
        ("/v1.24/auth", "/v1.24/auth"),
        ("/api/v2/x/v1234/v1.x", "/api/v2/x/v1234/v1.x"),
        ("/api/v12345678", "/api/{id}"),
        ("/projects/p/instances:list", "/projects/p/instances:list"),
        (
            "/2015-03-31/functions/f/invocations",
            "/{id}/functions/f/invocations",
        ),
    ];
    for (target, expected) in cases {
        assert_eq!(path(target.as_bytes(), &m), expected, "{target}");
    }
    assert_eq!(path(format!("/x/{token}/y").as_bytes(), &m), "/x/{id}/y");
    let long = format!("/{}", ["part"; 100].join("/"));
    assert!(path(long.as_bytes(), &m).len() < 300);
    assert!(path(long.as_bytes(), &m).ends_with("/..."));
    assert_eq!(path(&[b'/', 0xff, 0xfe], &m), "/{id}");
}

/// A learnt secret that looks like a word is no more reported than one that looks like a token.
#[test]
fn a_known_secret_that_looks_like_a_name_is_not_reported() {
    let m = matcher(&[b"correct-horse-battery"]);
    assert_eq!(path(b"/login/correct-horse-battery/x", &m), "/login/{id}/x");
    assert_eq!(
        path(b"/login/correct-horse-stable/x", &m),
        "/login/correct-horse-stable/x"
    );
}

#[test]
fn who_is_addressed_at_known_services() {
    let of = |host: &str, target_text: &str| {
        let request = Request {
            host: host.to_owned(),
            path: path(target_text.as_bytes(), &matcher(&[TOKEN])),
            ..Request::default()
        };
        target(&request).map(|t| format!("{} {} {}", t.service, t.kind, t.name))
    };
    let cases = [
        (
            "api.github.com",
            "/repos/octo/hello/contents/a",
            Some("github repository octo/hello"),
        ),
        (
            "api.github.com",
            "/user/repos",
            Some("github account (the token's own)"),
        ),
        (
            "github.com",
            "/octo/hello.git/git-receive-pack",
            Some("github repository octo/hello"),
        ),
        (
            "gitlab.com",
            "/api/v4/projects/group/x",
            Some("gitlab project group"),
        ),
        ("gitlab.com", "/api/v4/projects/42/x", None),
        (
            "my.bucket.s3.eu-west-1.amazonaws.com",
            "/key",
            Some("aws_s3 bucket my.bucket"),
        ),
        (
            "s3.eu-west-1.amazonaws.com",
            "/bucket-a/key",
            Some("aws_s3 bucket bucket-a"),
        ),
        ("sts.amazonaws.com", "/", None),
        (
            "acct.blob.core.windows.net",
            "/box/name",
            Some("azure_blob container acct/box"),
        ),
        (
            "storage.googleapis.com",
            "/upload/storage/v1/b/pail/o",
            Some("gcs bucket pail"),
        ),
        (
            "registry.example.com",
            "/v2/team/app/blobs/uploads/",
            Some("container_registry repository team/app"),
        ),
        (
            "registry.npmjs.org",
            "/left-pad",
            Some("npm package left-pad"),
        ),
        ("example.com", "/repos/octo/hello", None),
        ("evil-api.github.com.example.com", "/repos/octo/hello", None),
    ];
    for (host, target_text, expected) in cases {
        assert_eq!(
            of(host, target_text).as_deref(),
            expected,
            "{host}{target_text}"
        );
    }
}

#[test]
fn types_and_methods_are_tokens_or_nothing() {
    assert_eq!(
        content_type(b" Application/JSON; charset=utf-8"),
        "application/json"
    );
    assert_eq!(content_type(b"ghp_x"), "");
    assert_eq!(content_type(b"a/b\x1b[31m"), "");
    assert_eq!(method(b"PROPFIND"), "PROPFIND");
    assert_eq!(method(b"get"), "");
    assert_eq!(method(&[b'A'; 21]), "");
}
