// Ben invites Anna and writes to her: Example.kt SERVER HOMES.
import dev.keypool.Device
import dev.keypool.MailboxEventKind
import dev.keypool.groupId
import kotlin.random.Random
import kotlinx.coroutines.runBlocking

fun main(args: Array<String>) = runBlocking {
    val (server, homes) = args
    val group = groupId(Random.nextBytes(16))
    val (anna, ben) = listOf("anna", "ben").map { user ->
        Device.open("$homes/$user", user, "main", server).apply {
            register()
            refreshKeyPackages()
        }
    }
    ben.createGroup(group)
    ben.invite(group, listOf("anna"))
    ben.send(group, "pizza at eight?".toByteArray())
    for (event in anna.sync()) {
        val kind = event.kind
        if (kind is MailboxEventKind.Message) println("${kind.sender}: ${String(kind.bytes)}")
        anna.confirm(event.position)
    }
}
