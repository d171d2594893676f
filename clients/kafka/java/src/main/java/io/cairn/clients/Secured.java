package io.cairn.clients;

import java.util.Collection;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.ScramCredentialInfo;
import org.apache.kafka.clients.admin.ScramMechanism;
import org.apache.kafka.clients.admin.UserScramCredentialDeletion;
import org.apache.kafka.clients.admin.UserScramCredentialUpsertion;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.errors.TopicAuthorizationException;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Users, passwords and rules, as an administrator: README.md says what. */
final class Secured {
    private static final String LOGIN = "org.apache.kafka.common.security.%s required username=\"%s\" password=\"%s\";";

    private Secured() {}

    private static Properties as(String mechanism, String user, String password) {
        String module = mechanism.equals("PLAIN") ? "plain.PlainLoginModule" : "scram.ScramLoginModule";
        return Client.with("security.protocol", "SASL_PLAINTEXT", "sasl.mechanism", mechanism,
            "sasl.jaas.config", String.format(LOGIN, module, user, password));
    }

    private static boolean mayWrite(Properties properties, String topic) throws Exception {
        properties.put("key.serializer", ByteArraySerializer.class.getName());
        properties.put("value.serializer", ByteArraySerializer.class.getName());
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(properties)) {
            producer.send(new ProducerRecord<>(topic, 0, Client.key(0), Client.value(0))).get();
            return true;
        } catch (ExecutionException error) {
            if (error.getCause() instanceof TopicAuthorizationException) {
                return false;
            }
            throw error;
        }
    }

    static void administer(String given, String secret) throws Exception {
        String topic = given + ".rules";
        String user = given + ".ada";
        try (Admin ops = Admin.create(as("PLAIN", "ops", secret))) {
            ops.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get();
            for (ScramMechanism mechanism : List.of(ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)) {
                ScramCredentialInfo info = new ScramCredentialInfo(mechanism, 8192);
                ops.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion(user, info, "pencil"))).all().get();
                Client.need(mayWrite(as(mechanism.mechanismName(), user, "pencil"), topic), "nothing is written after a login by " + mechanism);
            }
            var known = ops.describeUserScramCredentials(List.of(user)).all().get().get(user).credentialInfos();
            Client.need(known.size() == 2 && known.stream().allMatch(info -> info.iterations() == 8192), user + " has " + known);
            ResourcePattern pattern = new ResourcePattern(ResourceType.TOPIC, given, PatternType.PREFIXED);
            AclBinding rule = new AclBinding(pattern,
                new AccessControlEntry("User:" + user, "*", AclOperation.WRITE, AclPermissionType.DENY));
            ops.createAcls(List.of(rule)).all().get();
            AclBindingFilter all = rule.toFilter();
            Client.need(List.copyOf(ops.describeAcls(all).values().get()).equals(List.of(rule)), "the rule is not described");
            Client.need(!mayWrite(as("SCRAM-SHA-512", user, "pencil"), topic), "what is denied was written");
            Collection<AclBinding> gone = ops.deleteAcls(List.of(all)).all().get();
            Client.need(List.copyOf(gone).equals(List.of(rule)), "other rules were deleted: " + gone);
            Client.need(mayWrite(as("SCRAM-SHA-512", user, "pencil"), topic), "what is denied no longer was refused");
            ops.alterUserScramCredentials(List.of(new UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_256),
                new UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_512))).all().get();
            ops.deleteTopics(List.of(topic)).all().get();
        }
    }
}
