// A tracker for `mobileinst check-tracker`, in Kotlin 1.3 or newer with Gson, both of them packages of Debian:
//   kotlinc docs/examples/Tracker.kt -cp /usr/share/java/gson.jar -include-runtime -d tracker.jar
//   mobileinst check-tracker --command 'java -cp tracker.jar:/usr/share/java/gson.jar TrackerKt'
// One JSON object per line in, one per line out; the protocol is docs/check-tracker.md.

import com.google.gson.Gson
import com.google.gson.JsonArray
import com.google.gson.JsonElement
import com.google.gson.JsonNull
import com.google.gson.JsonObject
import com.google.gson.JsonParser
import kotlin.math.abs
import kotlin.math.exp
import kotlin.math.max
import kotlin.math.min
import kotlin.math.sqrt

typealias Kernel = DoubleArray
typealias Plane = Array<DoubleArray> // [y][x]

// Cosines -----------------------------------------------------------------------------------------------

fun dot(a: Kernel, b: Kernel): Double {
    var sum = 0.0
    for (channel in a.indices) sum += a[channel] * b[channel]
    return sum
}

/** The kernel at norm 1, by way of its largest channel, so that squares neither overflow nor vanish. */
fun unit(kernel: Kernel): Kernel {
    require(kernel.none { it.isNaN() || it.isInfinite() }) { "a kernel is not finite" }
    val largest = kernel.fold(0.0) { most, value -> max(most, abs(value)) }
    if (largest == 0.0) return kernel // Its cosine with everything is 0.
    val scaled = DoubleArray(kernel.size) { kernel[it] / largest }
    val norm = sqrt(dot(scaled, scaled))
    return DoubleArray(kernel.size) { scaled[it] / norm }
}

fun requireLength(kernels: List<Kernel>, length: Int) =
    require(kernels.all { it.size == length }) { "kernels differ in length" }

// Assignment --------------------------------------------------------------------------------------------

const val RESOLUTION = 1099511627776.0 // 2⁴⁰: cosines become integers, so that sums and ties are exact.
const val NOBODY = -1

/** A square of costs, padded with zeros that stand for "nothing". */
class Assignment(previous: List<Kernel>, current: List<Kernel>) {
    private val slots = previous.size
    private val queries = current.size
    private val size = max(slots, queries)
    private val cost = Array(size) { LongArray(size) }
    private val u = LongArray(size + 1)
    private val v = LongArray(size + 1)
    private var owner = IntArray(size + 1) { size } // of each column
    private val fixed = BooleanArray(size)

    init {
        val rows = previous.map(::unit)
        val columns = current.map(::unit)
        for (i in rows.indices) for (j in columns.indices) cost[i][j] = -Math.round(dot(rows[i], columns[j]) * RESOLUTION)
    }

    /** The first, in dictionary order, of the permutations with the largest total. */
    fun permutation(): IntArray {
        for (row in 0 until size) add(row)
        takeFirstOfTies()
        val found = IntArray(slots) { NOBODY }
        for (j in 0 until queries) if (owner[j] < slots) found[owner[j]] = j
        return found
    }

    /** One more row, by a shortest augmenting path with potentials (Kuhn 1955, Munkres 1957). */
    private fun add(row: Int) {
        val least = LongArray(size + 1) { Long.MAX_VALUE }
        val used = BooleanArray(size + 1)
        val from = IntArray(size + 1) { size }
        var column = size
        owner[size] = row
        do {
            used[column] = true
            val at = owner[column]
            var delta = Long.MAX_VALUE
            var next = size
            for (j in 0 until size) {
                if (used[j]) continue
                val reduced = cost[at][j] - u[at] - v[j]
                if (reduced < least[j]) { least[j] = reduced; from[j] = column }
                if (least[j] < delta) { delta = least[j]; next = j }
            }
            for (j in 0..size) {
                if (used[j]) { u[owner[j]] += delta; v[j] -= delta } else if (least[j] != Long.MAX_VALUE) least[j] -= delta
            }
            column = next
        } while (owner[column] != size)
        while (column != size) { owner[column] = owner[from[column]]; column = from[column] }
    }

    private fun tight(row: Int, column: Int) = cost[row][column] == u[row] + v[column]

    /** Fix slot after slot at its lowest query from which the others can still be matched. */
    private fun takeFirstOfTies() {
        for (slot in 0 until slots) {
            val now = owner.indexOf(slot)
            for (query in 0 until min(now, queries)) {
                if (!fixed[query] && tight(slot, query) && give(slot, now, query)) break
            }
            fixed[owner.indexOf(slot)] = true
        }
    }

    private fun give(slot: Int, now: Int, query: Int): Boolean {
        val before = owner.copyOf()
        val displaced = owner[query]
        owner[now] = NOBODY
        owner[query] = slot
        fixed[query] = true
        if (rematch(displaced, BooleanArray(size))) return true
        fixed[query] = false
        owner = before
        return false
    }

    private fun rematch(row: Int, seen: BooleanArray): Boolean {
        for (j in 0 until size) {
            if (fixed[j] || seen[j] || !tight(row, j)) continue
            seen[j] = true
            if (owner[j] == NOBODY || rematch(owner[j], seen)) {
                owner[j] = row
                return true
            }
        }
        return false
    }
}

fun associate(previous: List<Kernel>, current: List<Kernel>): IntArray {
    val all = previous + current
    requireLength(all, if (all.isEmpty()) 0 else all[0].size)
    return Assignment(previous, current).permutation()
}

// Videos ------------------------------------------------------------------------------------------------

fun doubles(element: JsonElement): DoubleArray {
    val array = element.asJsonArray
    return DoubleArray(array.size()) { array[it].asDouble } // Throws at null.
}

fun kernelsOf(element: JsonElement): List<Kernel> = element.asJsonArray.map(::doubles)

fun featuresOf(frame: JsonObject): List<Plane> =
    frame["mask_features"].asJsonArray.map { plane -> plane.asJsonArray.map(::doubles).toTypedArray() }

/** Σ over channels of kernel[c] · features[c][y][x]. */
fun maskLogits(kernel: Kernel, features: List<Plane>): Plane =
    Array(features[0].size) { y ->
        DoubleArray(features[0][y].size) { x ->
            var sum = 0.0
            for (channel in kernel.indices) sum += kernel[channel] * features[channel][y][x]
            sum
        }
    }

/** A keyframe: the query that continues each slot. One network processes the whole video. */
fun nextOrder(now: JsonObject, first: Boolean, before: List<Kernel>, queries: List<Kernel>): IntArray {
    requireLength(queries, now["mask_features"].asJsonArray.size())
    if (first) {
        queries.forEach { unit(it) } // Refuses what is not finite.
        return IntArray(queries.size) { it }
    }
    require(queries.size == before.size) { "the number of kernels changes in the video" }
    return associate(before, queries)
}

fun tree(value: Any): JsonElement = Gson().toJsonTree(value)

fun objectOf(vararg members: Pair<String, JsonElement>) =
    JsonObject().apply { members.forEach { (name, value) -> add(name, value) } }

fun listOfAll(elements: Iterable<JsonElement>) = JsonArray().apply { elements.forEach { add(it) } }

fun stateOf(request: JsonObject): JsonObject? = request["state"].let { if (it.isJsonNull) null else it.asJsonObject }

fun video(request: JsonObject): JsonObject {
    val interval = request["keyframe_interval"].asLong
    val state = stateOf(request)
    var frame = state?.get("frame")?.asLong ?: 0L
    var order = state?.let { one -> one["order"].asJsonArray.map { it.asInt }.toIntArray() } ?: IntArray(0)
    var kernels = state?.let { kernelsOf(it["kernels"]) } ?: emptyList()
    val answers = request["frames"].asJsonArray.map { it.asJsonObject }.map { now ->
        val keyframe = frame % interval == 0L
        if (keyframe) {
            val queries = kernelsOf(now["kernels"])
            order = nextOrder(now, frame == 0L, kernels, queries)
            kernels = order.map { queries[it] }
        }
        frame += 1
        val features = featuresOf(now)
        val masks = kernels.map { tree(maskLogits(it, features)) }
        objectOf("keyframe" to tree(keyframe), "order" to tree(order), "masks" to listOfAll(masks))
    }
    val after = objectOf("frame" to tree(frame), "order" to tree(order), "kernels" to tree(kernels))
    return objectOf("frames" to listOfAll(answers), "state" to after)
}

// Online ------------------------------------------------------------------------------------------------

const val MASK = 0.45 // Probability above which a pixel belongs to a mask.

fun sigmoid(value: Double) = 1 / (1 + exp(-value))

/** The mean of the probabilities that belong to the mask, 0 if none does. */
fun maskness(logits: Plane): Double {
    val above = logits.flatMap { row -> row.map(::sigmoid) }.filter { it > MASK }
    return above.sum() / (above.size + 1e-6)
}

/** COCO's run lengths: down the columns, beginning with the pixels outside; null for an empty mask. */
fun runLengths(logits: Plane): JsonElement {
    val counts = mutableListOf(0)
    var inside = false
    for (x in logits[0].indices) for (row in logits) {
        if (sigmoid(row[x]) > MASK != inside) { inside = !inside; counts.add(0) }
        counts[counts.size - 1] += 1
    }
    if (counts.size == 1) return JsonNull.INSTANCE
    return objectOf("size" to tree(listOf(logits.size, logits[0].size)), "counts" to tree(counts))
}

fun largest(values: DoubleArray) = values.fold(Double.NEGATIVE_INFINITY) { most, value -> max(most, value) }

/** A slot: its kernel, the sums of its scores over keyframes, and the track that lives in it, if any. */
class Slot(val kernel: Kernel, val sums: DoubleArray, var identity: Int?) {
    fun state() = objectOf(
        "kernel" to tree(kernel),
        "sums" to tree(sums),
        "identity" to (identity?.let { tree(it) } ?: JsonNull.INSTANCE)
    )
}

class Online(private val request: JsonObject) {
    private val interval = request["keyframe_interval"].asLong
    private val before = stateOf(request)
    private var frame = before?.get("frame")?.asLong ?: 0L
    private var keyframes = before?.get("keyframes")?.asLong ?: 0L
    private var born = before?.get("born")?.asInt ?: 0
    private var slots = before?.get("slots")?.asJsonArray?.map { slotOf(it.asJsonObject) } ?: emptyList()

    fun answer(): JsonObject {
        val answers = request["frames"].asJsonArray.map { it.asJsonObject }.map { now ->
            if (frame % interval == 0L) takeKeyframe(now)
            frame += 1
            living(featuresOf(now))
        }
        val listed = listOfAll(slots.map { it.state() })
        val counts = arrayOf("frame" to tree(frame), "keyframes" to tree(keyframes), "born" to tree(born))
        return objectOf("frames" to listOfAll(answers), "state" to objectOf(*counts, "slots" to listed))
    }

    private fun slotOf(one: JsonObject): Slot {
        val identity = one["identity"].let { if (it.isJsonNull) null else it.asInt }
        return Slot(doubles(one["kernel"]), doubles(one["sums"]), identity)
    }

    /** A slot without a track gives birth to one at or above `birth`; a track below `death` ends. */
    private fun takeKeyframe(now: JsonObject) {
        val queries = kernelsOf(now["kernels"])
        for (scores in listOf("class_logits", "objectness")) {
            require(now[scores].asJsonArray.size() == queries.size) { "each kernel needs its scores" }
        }
        val order = nextOrder(now, frame == 0L, slots.map { it.kernel }, queries)
        slots = order.mapIndexed { index, query ->
            val old = slots.getOrNull(index)
            val scores = scores(now, query, queries[query])
            val sums = DoubleArray(scores.size) { scores[it] + (old?.sums?.get(it) ?: 0.0) }
            val slot = Slot(queries[query], sums, old?.identity)
            val best = largest(scores)
            if (slot.identity == null && best >= request["birth"].asDouble) slot.identity = born++
            else if (slot.identity != null && best < request["death"].asDouble) slot.identity = null
            slot
        }
        keyframes += 1
    }

    private fun scores(now: JsonObject, query: Int, kernel: Kernel): DoubleArray {
        val weight = if (request["rescore"].asBoolean) maskness(maskLogits(kernel, featuresOf(now))) else 1.0
        val objectness = sigmoid(doubles(now["objectness"].asJsonArray[query])[0])
        val logits = doubles(now["class_logits"].asJsonArray[query])
        return DoubleArray(logits.size) { weight * sqrt(sigmoid(logits[it]) * objectness) }
    }

    private fun living(features: List<Plane>): JsonObject {
        val alive = slots.filter { it.identity != null }.sortedBy { it.identity }
        return objectOf("tracks" to listOfAll(alive.map { slot ->
            val best = largest(slot.sums)
            objectOf(
                "identity" to tree(slot.identity!!),
                "label" to tree(slot.sums.indexOf(best)),
                "score" to tree(best / keyframes),
                "segmentation" to runLengths(maskLogits(slot.kernel, features))
            )
        }))
    }
}

// Requests ----------------------------------------------------------------------------------------------

fun answer(request: JsonObject): JsonObject {
    val op = request["op"].asString
    return when (op) {
        "associate" -> {
            val permutation = associate(kernelsOf(request["previous"]), kernelsOf(request["current"]))
            objectOf("permutation" to tree(permutation))
        }
        "video" -> video(request)
        "online" -> Online(request).answer()
        else -> objectOf("unsupported" to tree("op $op"))
    }
}

fun main() {
    while (true) {
        val line = readLine() ?: break
        val reply = try {
            answer(JsonParser.parseString(line).asJsonObject)
        } catch (error: Exception) {
            objectOf("error" to tree(error.toString()))
        }
        println(Gson().newBuilder().serializeNulls().create().toJson(reply))
    }
}
