package io.cairn.clients;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.apicurio.registry.resolver.ParsedSchema;
import io.apicurio.registry.resolver.ParsedSchemaImpl;
import io.apicurio.registry.resolver.SchemaLookupResult;
import io.apicurio.registry.resolver.SchemaParser;
import io.apicurio.registry.resolver.SchemaResolver;
import io.apicurio.registry.resolver.client.RegistryClientFacade;
import io.apicurio.registry.resolver.data.Record;
import io.apicurio.registry.resolver.strategy.ArtifactReference;
import io.apicurio.registry.resolver.strategy.ArtifactReferenceResolverStrategy;
import io.apicurio.registry.serde.data.SerdeMetadata;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/**
 * Lets Apicurio's serializers use a registry with Confluent's API: they ask it for schemas in the place of Apicurio's own. Named
 * by {@code apicurio.registry.schema-resolver}; the registry by {@code apicurio.registry.url}. Subjects are those of Confluent's
 * TopicNameStrategy.
 */
public final class Resolver<S, T> implements SchemaResolver<S, T> {
    private static final String MEDIA = "application/vnd.schemaregistry.v1+json";
    private static final ObjectMapper JSON = new ObjectMapper();

    private final HttpClient http = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    private final Map<String, SchemaLookupResult<S>> registered = new ConcurrentHashMap<>();
    private final Map<Long, SchemaLookupResult<S>> known = new ConcurrentHashMap<>();
    private SchemaParser<S, T> parser;
    private String url;
    private String location;

    @Override
    public void configure(Map<String, ?> configs, SchemaParser<S, T> parser) {
        this.parser = parser;
        url = String.valueOf(configs.get("apicurio.registry.url"));
        Object named = configs.get("apicurio.registry.artifact.schema.location");
        location = named == null ? null : named.toString();
    }

    @Override
    public SchemaLookupResult<S> resolveSchema(Record<T> data) {
        SerdeMetadata metadata = (SerdeMetadata) data.metadata();
        String subject = metadata.getTopic() + (metadata.isKey() ? "-key" : "-value");
        ParsedSchema<S> schema =
                parser.supportsExtractSchemaFromData() ? parser.getSchemaFromData(data) : parser.getSchemaFromLocation(location);
        String text = new String(schema.getRawSchema(), StandardCharsets.UTF_8);
        return registered.computeIfAbsent(subject + text, key -> {
            String body = JSON.createObjectNode().put("schema", text).put("schemaType", parser.artifactType()).toString();
            String path = "/subjects/" + URLEncoder.encode(subject, StandardCharsets.UTF_8) + "/versions";
            JsonNode answer = ask(HttpRequest.newBuilder(URI.create(url + path)).header("Content-Type", MEDIA)
                    .POST(HttpRequest.BodyPublishers.ofString(body)));
            return found(schema, answer.get("id").asLong());
        });
    }

    @Override
    public SchemaLookupResult<S> resolveSchemaByArtifactReference(ArtifactReference reference) {
        return known.computeIfAbsent(reference.getContentId(), id -> {
            JsonNode answer = ask(HttpRequest.newBuilder(URI.create(url + "/schemas/ids/" + id)));
            byte[] text = answer.get("schema").asText().getBytes(StandardCharsets.UTF_8);
            ParsedSchema<S> schema =
                    new ParsedSchemaImpl<S>().setParsedSchema(parser.parseSchema(text, new HashMap<>())).setRawSchema(text);
            return found(schema, id);
        });
    }

    private SchemaLookupResult<S> found(ParsedSchema<S> schema, long id) {
        return SchemaLookupResult.<S>builder().parsedSchema(schema).contentId(id).globalId(id).build();
    }

    private JsonNode ask(HttpRequest.Builder request) {
        try {
            HttpResponse<String> answer = http.send(request.header("Accept", MEDIA).build(), HttpResponse.BodyHandlers.ofString());
            if (answer.statusCode() != 200) {
                throw new IllegalStateException("the registry answers " + answer.statusCode() + ": " + answer.body());
            }
            return JSON.readTree(answer.body());
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        } catch (InterruptedException error) {
            throw new IllegalStateException(error);
        }
    }

    @Override
    public SchemaParser<S, T> getSchemaParser() {
        return parser;
    }

    @Override
    public void reset() {
        registered.clear();
        known.clear();
    }

    @Override
    public void setClientFacade(RegistryClientFacade facade) {
    }

    @Override
    public void setArtifactResolverStrategy(ArtifactReferenceResolverStrategy<S, T> strategy) {
    }

    @Override
    public void close() {
    }
}
