//! A group of the delivery, as devices use it over HTTP.

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Answer, Api, Device, framed_for, unframed};

/// The content types of MLS messages.
pub(crate) const APPLICATION: u8 = 1;
pub(crate) const COMMIT: u8 = 3;

/// A Welcome for a package, as far as it says so in clear (RFC 9420 section 12.4.3.1).
pub(crate) fn welcome_for(keypackage_ref: &str) -> String {
    let reference = HEXLOWER.decode(keypackage_ref.as_bytes()).unwrap();
    let secrets = [vec![32], reference, vec![0, 0]].concat();
    let length = u8::try_from(secrets.len()).unwrap();
    BASE64.encode(&[vec![0, 1, 0, 3, 0, 1, length], secrets, vec![0]].concat())
}

/// A group, by its id.
#[derive(Clone)]
pub(crate) struct Group {
    api: Api,
    id: String,
}

impl Group {
    pub(crate) fn new(api: &Api, id: &str) -> Self {
        Self { api: api.clone(), id: id.to_owned() }
    }

    /// The id as it stands in bodies.
    pub(crate) fn id(&self) -> String {
        BASE64.encode(self.id.as_bytes())
    }

    /// A route of the group.
    pub(crate) fn path(&self, route: &str) -> String {
        format!("/groups/{}/{route}", BASE64URL_NOPAD.encode(self.id.as_bytes()))
    }

    pub(crate) async fn make(&self, by: &Device) -> Answer {
        self.api.post(by, "/groups", json!({ "group_id": self.id() })).await
    }

    pub(crate) async fn leave(&self, by: &Device) -> Answer {
        self.api.post(by, &self.path("leave"), json!({})).await
    }

    pub(crate) async fn reserve(&self, by: &Device, user: &str) -> Answer {
        let id = Uuid::new_v4();
        let body = json!({ "target_user": user, "group_id": self.id(), "reservation_id": id });
        self.api.post(by, "/keypackages/reserve", body).await
    }

    /// An MLS message of this group, base64.
    pub(crate) fn framed(&self, epoch: u64, content_type: u8, words: &str) -> String {
        BASE64.encode(&framed_for(self.id.as_bytes(), epoch, content_type, words))
    }

    /// A Commit that adds the owner of a reserved package.
    pub(crate) fn adding(&self, epoch: u64, reserved: &Answer) -> Value {
        let mut body = self.changing_nothing(epoch);
        body["welcomes"] = json!([welcome_for(reserved.text("keypackage_ref"))]);
        body["spend"] = json!([{
            "keypackage_ref": reserved.body["keypackage_ref"],
            "reservation_id": reserved.body["reservation_id"],
        }]);
        body
    }

    pub(crate) fn changing_nothing(&self, epoch: u64) -> Value {
        let words = format!("commit {epoch}");
        json!({ "epoch": epoch, "commit": self.framed(epoch, COMMIT, &words) })
    }

    pub(crate) async fn commit(&self, by: &Device, body: Value) -> Answer {
        self.api.post(by, &self.path("commits"), body).await
    }

    /// Reserves a package of a user and adds its device.
    pub(crate) async fn add(&self, by: &Device, epoch: u64, user: &str) -> Answer {
        let reserved = self.reserve(by, user).await.ok();
        self.commit(by, self.adding(epoch, &reserved)).await
    }

    pub(crate) async fn post(&self, by: &Device, message: &str) -> Answer {
        self.api.post(by, &self.path("messages"), json!({ "message": message })).await
    }

    pub(crate) async fn say(&self, by: &Device, words: &str) -> Answer {
        self.post(by, &self.framed(1, APPLICATION, words)).await
    }

    /// Tells the server that a device has joined the group.
    pub(crate) async fn accept(&self, by: &Device) -> Answer {
        let body = json!({ "through": 0, "accepted": [self.id()] });
        self.api.post(by, "/mailbox/acknowledge", body).await
    }
}

/// The items that wait for a device: the kind of each, and its words if it has any.
pub(crate) async fn mailbox(api: &Api, device: &Device, query: &str) -> Vec<String> {
    let reply = api.get(device, &format!("/mailbox{query}")).await.ok();
    let told = |item: &Value| {
        let bytes = BASE64.decode(item["bytes"].as_str().unwrap().as_bytes()).unwrap();
        let kind = item["kind"].as_str().unwrap();
        match (kind, unframed(&bytes)) {
            ("welcome", _) | (_, None) => kind.to_owned(),
            (_, Some(text)) => format!("{kind}: {text}"),
        }
    };
    reply.body["items"].as_array().unwrap().iter().map(told).collect()
}
