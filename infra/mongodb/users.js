// Runs once, on an empty volume. The functions' user may access only these databases.
db.getSiblingDB("admin").createUser({
  user: "mp3burst",
  pwd: process.env.MONGO_PASSWORD,
  roles: [
    { role: "readWrite", db: "videos" },
    { role: "readWrite", db: "pieces" },
    { role: "readWrite", db: "mp3s" },
  ],
});
