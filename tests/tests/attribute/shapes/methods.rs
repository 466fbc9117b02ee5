//! Methods: inherent, of traits, and under `#[async_trait]`.

use std::fmt::Display;
use std::sync::Arc;

use async_trait::async_trait;
use dlock_runtime::{LockError, distributed_lock};

use super::{Room, assert_exclusive};

struct Shop<T> {
    id: T,
    room: Arc<Room>,
    sold: u32,
}

impl<T> Shop<T> {
    fn new(id: T, room: &Arc<Room>) -> Self {
        Self { id, room: Arc::clone(room), sold: 0 }
    }
}

impl<T: Display + Send + Sync> Shop<T> {
    fn name(&self) -> String {
        format!("shop {}", self.id)
    }

    #[distributed_lock(key = "shop:<self.id>:<item>", guard = lock)]
    async fn shared(&self, item: u8) -> Result<String, LockError> {
        self.room.visit().await;
        Ok(lock.key().to_string())
    }

    #[distributed_lock(key = "shop:<self.name()>", guard = lock)]
    async fn exclusive(&mut self) -> Result<String, LockError> {
        self.sold += 1;
        self.room.visit().await;
        Ok(lock.key().to_string())
    }

    #[distributed_lock(key = "shop:<self.id>", guard = lock)]
    async fn by_value(mut self) -> Result<String, LockError> {
        self.sold += 1;
        self.room.visit().await;
        Ok(lock.key().to_string())
    }

    #[distributed_lock(key = "shop:<self.id>", guard = lock)]
    async fn shared_pointer(self: Arc<Self>) -> Result<String, LockError> {
        self.room.visit().await;
        Ok(lock.key().to_string())
    }

    #[distributed_lock(key = format!("expression:{}", self.id), guard = lock)]
    async fn expression(&self) -> Result<String, LockError> {
        self.room.visit().await;
        Ok(lock.key().to_string())
    }

    #[distributed_lock(key = "associated:<id>", guard = lock)]
    async fn associated(id: T, room: &Room) -> Result<String, LockError> {
        room.visit().await;
        Ok(lock.key().to_string())
    }
}

#[tokio::test]
async fn every_kind_of_receiver() {
    let shop = || {
        let room = Arc::default();
        (Shop::new("a", &room), room)
    };
    let (one, room) = shop();
    assert_exclusive(&room, "shop:a:1", one.shared(1), one.shared(1)).await;
    let (mut one, room) = shop();
    let mut other = Shop::new("a", &room);
    assert_exclusive(&room, "shop:shop%20a", one.exclusive(), other.exclusive()).await;
    assert_eq!((one.sold, other.sold), (1, 1));
    let (one, room) = shop();
    assert_exclusive(&room, "shop:a", one.by_value(), Shop::new("a", &room).by_value()).await;
    let (one, room) = shop();
    let one = Arc::new(one);
    let other = Arc::clone(&one);
    assert_exclusive(&room, "shop:a", one.shared_pointer(), other.shared_pointer()).await;
    let (one, room) = shop();
    assert_exclusive(&room, "expression:a", one.expression(), one.expression()).await;
    let room = Room::default();
    let call = || Shop::associated(1, &room);
    assert_exclusive(&room, "associated:1", call(), call()).await;
}

struct Booth {
    id: u8,
    room: Room,
}

fn booth() -> Booth {
    Booth { id: 1, room: Room::default() }
}

trait Visit {
    fn id(&self) -> u8;
    fn room(&self) -> &Room;

    #[allow(async_fn_in_trait, reason = "this is what is tested")]
    #[distributed_lock(key = "default:<self.id()>", guard = lock)]
    async fn by_default(&self) -> Result<String, LockError> {
        self.room().visit().await;
        Ok(lock.key().to_string())
    }

    async fn implemented(&self, id: u8) -> Result<String, LockError>;
}

impl Visit for Booth {
    fn id(&self) -> u8 {
        self.id
    }

    fn room(&self) -> &Room {
        &self.room
    }

    #[distributed_lock(key = "implemented:<id>", guard = lock)]
    async fn implemented(&self, id: u8) -> Result<String, LockError> {
        self.room.visit().await;
        Ok(lock.key().to_string())
    }
}

#[tokio::test]
async fn native_async_methods_of_traits() {
    let one = booth();
    assert_exclusive(&one.room, "default:1", one.by_default(), one.by_default()).await;
    let one = booth();
    let call = || one.implemented(2);
    assert_exclusive(&one.room, "implemented:2", call(), call()).await;
}

struct Path<T>(T);

#[async_trait]
trait Service: Send + Sync {
    fn room(&self) -> &Room;

    #[distributed_lock(key = "default:<id>", guard = lock)]
    async fn by_default(&self, id: u8) -> Result<String, LockError> {
        self.room().visit().await;
        Ok(lock.key().to_string())
    }

    async fn implemented(&self, id: &str, count: u8) -> Result<String, LockError>;
    async fn destructured(
        &self,
        path: Path<u8>,
        pair: (u8, String),
        _: String,
    ) -> Result<String, LockError>;
    async fn changed(&mut self, id: u8) -> Result<String, LockError>;
    async fn question(&self, text: String) -> Result<u8, Box<dyn std::error::Error + Send + Sync>>;
}

#[async_trait]
impl<T: Display + Send + Sync> Service for Shop<T> {
    fn room(&self) -> &Room {
        &self.room
    }

    #[distributed_lock(key = "implemented:<self.id>:<id>", guard = lock)]
    async fn implemented(&self, id: &str, mut count: u8) -> Result<String, LockError> {
        count += 1;
        self.room.visit().await;
        assert_eq!(count, 3);
        Ok(lock.key().to_string())
    }

    #[distributed_lock(key = "destructured:<id>:<name>", guard = lock)]
    async fn destructured(
        &self,
        Path(id): Path<u8>,
        (_, name): (u8, String),
        _: String,
    ) -> Result<String, LockError> {
        self.room.visit().await;
        assert_eq!((id, &*name), (1, "n"));
        Ok(lock.key().to_string())
    }

    #[distributed_lock(key = "changed:<self.sold>:<id>", guard = lock)]
    async fn changed(&mut self, id: u8) -> Result<String, LockError> {
        self.sold += u32::from(id);
        self.room.visit().await;
        Ok(lock.key().to_string())
    }

    #[distributed_lock(key = "question:<text>")]
    async fn question(&self, text: String) -> Result<u8, Box<dyn std::error::Error + Send + Sync>> {
        Ok(text.parse()?)
    }
}

#[tokio::test]
async fn methods_under_async_trait() {
    let shop = || {
        let room = Arc::default();
        (Shop::new("a", &room), room)
    };
    let (one, room) = shop();
    assert_exclusive(&room, "default:1", one.by_default(1), one.by_default(1)).await;
    let (one, room) = shop();
    let call = || one.implemented("x", 2);
    assert_exclusive(&room, "implemented:a:x", call(), call()).await;
    let (one, room) = shop();
    let call = || one.destructured(Path(1), (2, "n".to_owned()), String::new());
    assert_exclusive(&room, "destructured:1:n", call(), call()).await;
    let (mut one, room) = shop();
    let mut other = Shop::new("a", &room);
    assert_exclusive(&room, "changed:0:1", one.changed(1), other.changed(1)).await;
    let (one, _) = shop();
    let question = super::registry().scope(one.question("x".to_owned())).await;
    assert!(question.is_err());
}

#[async_trait(?Send)]
trait Local {
    async fn visit(&self, id: std::rc::Rc<u8>) -> Result<String, LockError>;
}

#[async_trait(?Send)]
impl Local for Booth {
    #[distributed_lock(key = "local:<id>", guard = lock)]
    async fn visit(&self, id: std::rc::Rc<u8>) -> Result<String, LockError> {
        self.room.visit().await;
        Ok(lock.key().to_string())
    }
}

#[tokio::test]
async fn methods_under_local_async_trait() {
    let one = booth();
    let call = || one.visit(std::rc::Rc::new(1));
    assert_exclusive(&one.room, "local:1", call(), call()).await;
}
