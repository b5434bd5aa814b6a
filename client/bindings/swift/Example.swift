// Ben invites Anna and writes to her: example SERVER HOMES.
import Foundation

@main
struct Example {
    static func main() async throws {
        let (server, homes) = (CommandLine.arguments[1], CommandLine.arguments[2])
        func open(_ user: String) async throws -> Device {
            let device = try await Device.open(
                home: "\(homes)/\(user)", user: user, device: "main", server: server)
            _ = try await device.register()
            _ = try await device.refreshKeyPackages()
            return device
        }
        let (anna, ben) = (try await open("anna"), try await open("ben"))
        let group = try groupId(bytes: Data((0..<16).map { _ in UInt8.random(in: 0...255) }))
        try await ben.createGroup(group: group)
        _ = try await ben.invite(group: group, invitees: ["anna"])
        _ = try await ben.send(group: group, message: Data("pizza at eight?".utf8))
        for event in try await anna.sync() {
            if case let .message(_, sender, _, bytes) = event.kind {
                print("\(sender): \(String(decoding: bytes, as: UTF8.self))")
            }
            try await anna.confirm(through: event.position)
        }
    }
}
