// Plays the devices of the scenario that are in Kotlin: see ../scenario.json and ../tests/bindings/scenario.rs.
//
// Its arguments are the server's URL and a folder for homes. It reads a step a line and answers each with a line. Needs
// kotlinx-serialization-json beside the module's own dependencies.
import dev.keypool.Device
import dev.keypool.DeviceException
import dev.keypool.DeviceOptions
import dev.keypool.MailboxEvent
import dev.keypool.MailboxEventKind
import dev.keypool.PeerStatus
import dev.keypool.groupBytes
import dev.keypool.groupId
import kotlinx.coroutines.runBlocking
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive

fun main(args: Array<String>) = runBlocking {
    val (server, homes) = args
    val devices = mutableMapOf<String, Device>()
    for (line in generateSequence(::readLine)) {
        val step = Json.parseToJsonElement(line).jsonObject
        val (name, verb, stepArgs) = Triple(step.text("device"), step.text("verb"), step.getValue("args").jsonObject)
        val answer = try {
            "ok" to if (verb == "open") {
                val options = DeviceOptions(
                    target = stepArgs.getValue("target").jsonPrimitive.int.toUInt(),
                    ciphersuites = stepArgs["ciphersuites"]?.jsonArray?.map { it.jsonPrimitive.int.toUShort() },
                )
                devices[name] = Device.open("$homes/$name", step.text("user"), step.text("name"), server, options)
                JsonNull
            } else {
                play(devices.getValue(name), verb, stepArgs)
            }
        } catch (error: DeviceException.Failed) {
            "error" to fields(
                "code" to error.code,
                "message" to error.text,
                "request_id" to error.requestId,
                "retryable" to error.retryable,
            )
        }
        println(JsonObject(mapOf(answer)))
    }
}

/** Carries out a step on a device that is open. */
suspend fun play(device: Device, verb: String, args: JsonObject): JsonElement {
    val group by lazy { groupId(args.text("group").toByteArray()) }
    return when (verb) {
        "close" -> device.closeHome().let { JsonNull }
        "register" -> device.register().let { fields("user" to it.user, "device" to it.device) }
        "refresh" -> device.refreshNow().let { fields("created" to it.created, "available" to it.available) }
        "status" -> device.status().counts.let {
            fields("available" to it.available, "reserved" to it.reserved, "spent" to it.spent)
        }
        "create_group" -> device.createGroup(group).let { JsonNull }
        "invite" -> {
            val invitees = args.getValue("invitees").jsonArray.map { it.jsonPrimitive.content }
            val invited = device.invite(group, invitees)
            val added = JsonArray(invited.added.map { JsonPrimitive(it.device) })
            JsonObject(mapOf("added" to added, "missing" to JsonPrimitive(invited.missing.size)))
        }
        "resume" -> {
            val resumed = device.resumeOutbox() + device.resumeInvitations() + device.resumeUpdates()
            fields("resumed" to resumed.size)
        }
        "send" -> fields("sent" to (device.send(group, args.text("text").toByteArray()) != null))
        "sync" -> {
            val events = device.sync()
            events.lastOrNull()?.let { device.confirm(it.position) }
            JsonArray(events.map(::seen))
        }
        "groups" -> JsonArray(device.groups().map { JsonPrimitive(nameOf(it)) })
        "members" -> JsonArray(device.members(group).map { it.name }.sorted().map(::JsonPrimitive))
        "update_keys" -> device.updateKeys(group).let { JsonNull }
        "reserve" -> device.reserve(group, args.text("invitee")).let {
            fields("keypackage_ref" to it.keypackageRef, "reservation_id" to it.reservationId)
        }
        "spend" -> {
            val claim = args.getValue("reservation").jsonObject
            val spent = device.spend(group, claim.text("keypackage_ref"), claim.text("reservation_id"))
            fields("late" to spent.late, "replayed" to spent.replayed)
        }
        "rotate_key" -> JsonPrimitive(device.rotateKey())
        "safety_number" -> JsonPrimitive(device.safetyNumber(args.text("user")))
        "verify" -> JsonPrimitive(device.verifyPeer(args.text("user")))
        "peer" -> fields("verified" to (device.peer(args.text("user"))?.status is PeerStatus.Verified))
        "audit" -> fields("is_sound" to device.audit().isSound)
        else -> error("$verb is no verb")
    }
}

/** An event as the scenario has it. */
fun seen(event: MailboxEvent): JsonElement = when (val kind = event.kind) {
    is MailboxEventKind.Joined -> fields("kind" to "joined", "group" to nameOf(kind.group), "from" to kind.inviter)
    is MailboxEventKind.Message -> fields(
        "kind" to "message",
        "group" to nameOf(kind.group),
        "from" to kind.sender,
        "text" to String(kind.bytes),
    )
    is MailboxEventKind.Changed ->
        fields("kind" to "changed", "group" to nameOf(kind.v1.group), "from" to kind.v1.sender)
    else -> fields("kind" to "other")
}

fun nameOf(group: String) = String(groupBytes(group))

fun JsonObject.text(name: String) = getValue(name).jsonPrimitive.content

fun fields(vararg pairs: Pair<String, Any?>) = JsonObject(
    pairs.associate { (name, value) ->
        name to when (value) {
            null -> JsonNull
            is Boolean -> JsonPrimitive(value)
            is Number -> JsonPrimitive(value)
            is ULong -> JsonPrimitive(value.toLong())
            else -> JsonPrimitive(value.toString())
        }
    },
)
