//! Images made here: for the demonstration and the tests, which have no network to pull any from.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Which of the two families of media types an image has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `application/vnd.oci.image...`
    Oci,
    /// `application/vnd.docker.distribution...`
    Docker,
}

impl Kind {
    /// The media type of a manifest.
    pub fn manifest(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.manifest.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    /// The media type of an index (a manifest list) of several platforms.
    pub fn index(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.index.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.config.v1+json",
            Self::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    fn layer(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.layer.v1.tar",
            Self::Docker => "application/vnd.docker.image.rootfs.diff.tar",
        }
    }
}

/// The digest of some bytes, `sha256:...`.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// An image of one platform.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its family of media types.
    pub kind: Kind,
    /// The architecture that its configuration names, `amd64` for instance.
    pub architecture: &'static str,
    /// Its manifest.
    pub manifest: Vec<u8>,
    /// Its configuration, then its layers.
    pub blobs: Vec<Vec<u8>>,
}

impl Image {
    /// An image whose layers are one file each, of so many bytes that do not compress; the same seed gives the same
    /// image.
    ///
    /// # Errors
    /// A layer cannot be written, which memory alone can cause.
    pub fn new(kind: Kind, architecture: &'static str, seed: &str, sizes: &[usize]) -> Result<Self> {
        let layers: Vec<Vec<u8>> = sizes
            .iter()
            .enumerate()
            .map(|(n, &size)| layer(&format!("{seed}/{architecture}/{n}"), size))
            .collect::<std::io::Result<_>>()
            .map_err(Error::io("write a layer"))?;
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Cmd": ["/data-0"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let blobs: Vec<Vec<u8>> = std::iter::once(config.to_string().into_bytes()).chain(layers).collect();
        let describe =
            |media: &str, bytes: &[u8]| json!({"mediaType": media, "digest": digest(bytes), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind.manifest(),
            "config": describe(kind.config(), &blobs[0]),
            "layers": blobs[1..].iter().map(|layer| describe(kind.layer(), layer)).collect::<Vec<Value>>(),
        });
        Ok(Self { kind, architecture, manifest: manifest.to_string().into_bytes(), blobs })
    }

    /// Pushes it to a registry at `ADDRESS:PORT`, under a tag.
    ///
    /// # Errors
    /// The registry refuses, or does not answer.
    pub fn push(&self, address: &str, repository: &str, tag: &str) -> Result<()> {
        let to = Repository { address, name: repository };
        self.blobs.iter().try_for_each(|blob| to.blob(blob))?;
        to.manifest(self.kind.manifest(), tag, &self.manifest)
    }
}

/// Pushes images of several platforms under one tag, and gives their index back.
///
/// # Errors
/// The registry refuses, or does not answer.
pub fn push_index(images: &[Image], kind: Kind, address: &str, repository: &str, tag: &str) -> Result<Vec<u8>> {
    for image in images {
        image.push(address, repository, &digest(&image.manifest))?;
    }
    let manifests: Vec<Value> = images
        .iter()
        .map(|image| {
            json!({
                "mediaType": image.kind.manifest(), "digest": digest(&image.manifest), "size": image.manifest.len(),
                "platform": {"architecture": image.architecture, "os": "linux"},
            })
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": kind.index(), "manifests": manifests}).to_string().into_bytes();
    Repository { address, name: repository }.manifest(kind.index(), tag, &index)?;
    Ok(index)
}

/// A layer of one file that no compression makes smaller.
fn layer(seed: &str, size: usize) -> std::io::Result<Vec<u8>> {
    // An xorshift generator: a digest for every few bytes would take its time.
    let mut word = seed
        .bytes()
        .fold(0x9e37_79b9_7f4a_7c15_u64, |word, byte| (word ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut content = Vec::with_capacity(size + 8);
    while content.len() < size {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        content.extend_from_slice(&word.to_le_bytes());
    }
    content.truncate(size);
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(size as u64);
    let name = format!("data-{}", seed.rsplit('/').next().unwrap_or(seed));
    builder.append_data(&mut header, name, &content[..])?;
    builder.into_inner()
}

struct Repository<'a> {
    address: &'a str,
    name: &'a str,
}

impl Repository<'_> {
    fn agent() -> ureq::Agent {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(60))).proxy(None).build();
        ureq::Agent::new_with_config(config)
    }

    fn blob(&self, bytes: &[u8]) -> Result<()> {
        let (address, name) = (self.address, self.name);
        let begin = format!("http://{address}/v2/{name}/blobs/uploads/");
        let begun = Self::agent().post(&begin).send_empty().map_err(|error| refused(&begin, error))?;
        let at = begun.headers().get("Location").and_then(|at| at.to_str().ok()).unwrap_or_default();
        // A registry may name itself by another address than the one it was asked on.
        let path = at.split_once("/v2/").map_or(at, |(_, path)| path);
        let separator = if path.contains('?') { '&' } else { '?' };
        let end = format!("http://{address}/v2/{path}{separator}digest={}", digest(bytes));
        Self::agent().put(&end).send(bytes).map(|_| ()).map_err(|error| refused(&end, error))
    }

    fn manifest(&self, media: &str, reference: &str, bytes: &[u8]) -> Result<()> {
        let url = format!("http://{}/v2/{}/manifests/{reference}", self.address, self.name);
        let put = Self::agent().put(&url).content_type(media).send(bytes);
        put.map(|_| ()).map_err(|error| refused(&url, error))
    }
}

fn refused(url: &str, error: ureq::Error) -> Error {
    Error::io(format!("push to {url}"))(std::io::Error::other(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_image_and_its_digests_are_those_of_its_blobs() {
        let image = Image::new(Kind::Oci, "amd64", "a", &[1000, 2000]).unwrap();
        assert_eq!(image.manifest, Image::new(Kind::Oci, "amd64", "a", &[1000, 2000]).unwrap().manifest);
        assert_ne!(image.manifest, Image::new(Kind::Oci, "amd64", "b", &[1000, 2000]).unwrap().manifest);
        let manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
        assert_eq!(manifest["config"]["digest"], digest(&image.blobs[0]));
        assert_eq!(manifest["layers"][1]["digest"], digest(&image.blobs[2]));
        let config: Value = serde_json::from_slice(&image.blobs[0]).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][1], digest(&image.blobs[2]));
        let mut layer = tar::Archive::new(&image.blobs[2][..]);
        assert_eq!(layer.entries().unwrap().next().unwrap().unwrap().size(), 2000);
    }
}
