package differential;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Iterator;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.regex.Pattern;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.record.BaseRecords;

/**
 * Requests from JSON and responses to JSON, by the converters that Kafka generates for each message. A request may leave out
 * fields, which get the protocol's defaults, and may have fields of other versions, which are dropped.
 * Record sets are rendered as batches, which the converters leave empty.
 */
final class Messages {
    private Messages() {}

    static ApiKeys api(String name) {
        return Arrays.stream(ApiKeys.values()).filter(api -> api.name.equals(name)).findFirst()
            .orElseThrow(() -> new IllegalArgumentException("no API is called " + name));
    }

    static ApiMessage request(ApiKeys api, short version, JsonNode body) {
        ApiMessage empty = api.messageType.newRequest();
        ObjectNode full = withDefaults(empty.getClass(), (ObjectNode) body.deepCopy(), version);
        return (ApiMessage) call(converter(empty.getClass(), "read", JsonNode.class, short.class), full, version);
    }

    static ObjectNode response(ApiMessage response, short version) {
        ObjectNode node = write(response, version);
        renderRecords(response, node);
        return node;
    }

    private static ObjectNode write(Message message, short version) {
        return (ObjectNode) call(converter(message.getClass(), "write", message.getClass(), short.class, boolean.class), message, version,
            true);
    }

    private static ObjectNode withDefaults(Class<?> type, ObjectNode given, short version) {
        ObjectNode defaults = write(instance(type), version);
        Set<String> known = fields(type, version);
        given.fieldNames().forEachRemaining(field -> getter(type, field));
        given.retain(known);
        for (Map.Entry<String, JsonNode> field : given.properties()) {
            Class<?> inner = structOf(type, field.getKey());
            if (inner != null && field.getValue().isObject()) {
                withDefaults(inner, (ObjectNode) field.getValue(), version);
            } else if (inner != null && field.getValue().isArray()) {
                field.getValue().forEach(element -> withDefaults(inner, (ObjectNode) element, version));
            }
        }
        defaults.properties().stream().filter(field -> !given.has(field.getKey())).toList()
            .forEach(field -> given.set(field.getKey(), field.getValue()));
        return given;
    }

    /** The fields of a version, by their names in JSON. */
    private static Set<String> fields(Class<?> type, short version) {
        Schema schema;
        try {
            schema = ((Schema[]) type.getField("SCHEMAS").get(null))[version];
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException(e);
        }
        Set<String> names = new HashSet<>();
        for (BoundField field : schema.fields()) {
            names.add(camelCase(field.def.name));
            if (field.def.type instanceof TaggedFields tagged) {
                tagged.fields().values().forEach(optional -> names.add(camelCase(optional.name)));
            }
        }
        return names;
    }

    private static String camelCase(String snakeCase) {
        return Pattern.compile("_(.)").matcher(snakeCase).replaceAll(match -> match.group(1).toUpperCase(Locale.ROOT));
    }

    /** The message class of a field or of its elements, null if it is a plain value. */
    private static Class<?> structOf(Class<?> owner, String field) {
        Method getter = getter(owner, field);
        if (Message.class.isAssignableFrom(getter.getReturnType())) {
            return getter.getReturnType();
        }
        Type type = getter.getGenericReturnType();
        if (!(type instanceof ParameterizedType)) {
            type = getter.getReturnType().getGenericSuperclass();
        }
        if (type instanceof ParameterizedType list && list.getActualTypeArguments()[0] instanceof Class<?> element
            && Message.class.isAssignableFrom(element)) {
            return element;
        }
        return null;
    }

    private static void renderRecords(Message message, ObjectNode node) {
        for (Map.Entry<String, JsonNode> field : node.properties()) {
            Object value = call(getter(message.getClass(), field.getKey()), message);
            if (value instanceof BaseRecords records) {
                field.setValue(Batches.render(records));
            } else if (value instanceof Message struct) {
                renderRecords(struct, (ObjectNode) field.getValue());
            } else if (value instanceof Iterable<?> list) {
                Iterator<JsonNode> nodes = field.getValue().iterator();
                for (Object element : list) {
                    JsonNode rendered = nodes.next();
                    if (element instanceof Message struct) {
                        renderRecords(struct, (ObjectNode) rendered);
                    }
                }
            }
        }
    }

    private static Method getter(Class<?> owner, String field) {
        try {
            return owner.getMethod(field);
        } catch (NoSuchMethodException e) {
            throw new IllegalArgumentException(owner.getSimpleName() + " has no field " + field);
        }
    }

    private static Method converter(Class<?> type, String method, Class<?>... arguments) {
        String name = type.getName();
        int inner = name.indexOf('$');
        String converter = inner < 0 ? name + "JsonConverter"
            : name.substring(0, inner) + "JsonConverter$" + name.substring(inner + 1) + "JsonConverter";
        try {
            return Class.forName(converter).getMethod(method, arguments);
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException(e);
        }
    }

    private static Message instance(Class<?> type) {
        try {
            return (Message) type.getConstructor().newInstance();
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException(e);
        }
    }

    private static Object call(Method method, Object... arguments) {
        boolean isStatic = Modifier.isStatic(method.getModifiers());
        try {
            return isStatic ? method.invoke(null, arguments) : method.invoke(arguments[0]);
        } catch (InvocationTargetException e) {
            throw new IllegalArgumentException(e.getCause().getMessage(), e.getCause());
        } catch (IllegalAccessException e) {
            throw new IllegalStateException(e);
        }
    }
}
